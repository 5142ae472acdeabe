import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Properties;

import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.AutoOffsetReset;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Brings each partition of a topic into order of event time, exactly once, with
 * Kafka Streams.
 *
 * <p>What is held lies in a store keyed by (event time, source offset): its own
 * order is that of the output, and it is restored from its changelog. There is
 * one task per partition, so stream time is the greatest event time seen in
 * that partition; Streams keeps it with the committed offset.
 */
public final class Reorder {
    static final long BOUND_MS = Long.getLong("bound", 5000);
    static final String HELD = "held";

    /** The event time is in a header, as decimal text in ms. */
    public static final class EventTime implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> r, long partitionTime) {
            Header h = r.headers().lastHeader("event-time");
            if (h == null) {
                return r.timestamp();
            }
            long ms = 0;
            for (byte digit : h.value()) {
                ms = 10 * ms + (digit - '0');
            }
            return ms;
        }
    }

    static final class Sort implements Processor<byte[], byte[], byte[], byte[]> {
        private ProcessorContext<byte[], byte[]> context;
        private KeyValueStore<Bytes, byte[]> held;
        private long released; // everything below this event time has gone out

        @Override
        public void init(ProcessorContext<byte[], byte[]> c) {
            context = c;
            held = c.getStateStore(HELD);
        }

        @Override
        public void process(Record<byte[], byte[]> r) {
            long limit = context.currentStreamTimeMs() - BOUND_MS;
            if (r.timestamp() < limit) {
                context.forward(r, "late");
                return;
            }
            held.put(place(r.timestamp(), context.recordMetadata().orElseThrow().offset()), pack(r));
            if (limit > released) {
                release(limit);
            }
        }

        /** The lower end of the range spares RocksDB the tombstones of what went out before. */
        private void release(long limit) {
            try (var due = held.range(place(released, 0), place(limit - 1, Long.MAX_VALUE))) {
                while (due.hasNext()) {
                    var next = due.next();
                    context.forward(unpack(next.key, next.value), "ordered");
                    held.put(next.key, null); // delete() would first read what it deletes
                }
            }
            released = limit;
        }
    }

    static Bytes place(long time, long offset) {
        return Bytes.wrap(ByteBuffer.allocate(16).putLong(time).putLong(offset).array());
    }

    /** The parts of a record, each after its length: key, value, and name and value of each header. */
    static byte[] pack(Record<byte[], byte[]> r) {
        Header[] headers = r.headers().toArray();
        byte[][] parts = new byte[2 + 2 * headers.length][];
        parts[0] = r.key();
        parts[1] = r.value();
        int size = 0;
        for (int i = 0; i < headers.length; i++) {
            parts[2 + 2 * i] = headers[i].key().getBytes(StandardCharsets.UTF_8);
            parts[3 + 2 * i] = headers[i].value();
        }
        for (byte[] part : parts) {
            size += 4 + (part == null ? 0 : part.length);
        }
        ByteBuffer b = ByteBuffer.allocate(size);
        for (byte[] part : parts) {
            if (part == null) {
                b.putInt(-1);
            } else {
                b.putInt(part.length).put(part);
            }
        }
        return b.array();
    }

    static Record<byte[], byte[]> unpack(Bytes place, byte[] packed) {
        ByteBuffer b = ByteBuffer.wrap(packed);
        byte[] key = part(b);
        byte[] value = part(b);
        RecordHeaders headers = new RecordHeaders();
        while (b.hasRemaining()) {
            headers.add(new String(part(b), StandardCharsets.UTF_8), part(b));
        }
        return new Record<>(key, value, ByteBuffer.wrap(place.get()).getLong(), headers);
    }

    static byte[] part(ByteBuffer b) {
        int length = b.getInt();
        if (length < 0) {
            return null;
        }
        byte[] part = new byte[length];
        b.get(part);
        return part;
    }

    static Topology topology(String topic, boolean rocksdb) {
        var bytes = new ByteArrayDeserializer();
        var raw = new ByteArraySerializer();
        var supplier = rocksdb ? Stores.persistentKeyValueStore(HELD) : Stores.inMemoryKeyValueStore(HELD);
        return new Topology()
            .addSource(AutoOffsetReset.earliest(), "raw", new EventTime(), bytes, bytes, topic)
            .addProcessor("sort", Sort::new, "raw")
            .addStateStore(Stores.keyValueStoreBuilder(supplier, Serdes.Bytes(), Serdes.ByteArray()), "sort")
            .addSink("ordered", topic + ".ordered", raw, raw, "sort")
            .addSink("late", topic + ".late", raw, raw, "sort");
    }

    static Properties config(String broker, String application, int commitMs, String stateDir) {
        Properties p = new Properties();
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, broker);
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        p.put(StreamsConfig.STATE_DIR_CONFIG, stateDir);
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, commitMs);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Runtime.getRuntime().availableProcessors());
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20);
        // A commit flushes, so to linger costs no latency and makes large batches.
        p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 1_000_000);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 128 << 20);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), System.getProperty("codec", "none"));
        return p;
    }

    /** Arguments: broker, topic, application id, memory or rocksdb, commit interval in ms, folder for state. */
    public static void main(String[] args) {
        var topology = topology(args[1], args[3].equals("rocksdb"));
        var streams = new KafkaStreams(topology, config(args[0], args[2], Integer.parseInt(args[4]), args[5]));
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                System.out.println("ready");
            } else if (now == KafkaStreams.State.ERROR) {
                Runtime.getRuntime().halt(1); // the reason has been logged
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }
}
