import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.PriorityQueue;
import java.util.Properties;

import org.apache.flink.api.common.JobStatus;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetIdentifier;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacetProvider;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Brings each partition of a topic into order of event time, exactly once, with
 * Flink, in one process.
 *
 * <p>The watermark of a Flink operator is the least of all its partitions'.
 * What is late in a partition is decided by that partition alone, so its
 * greatest event time is kept here, in state. Held records are in state by
 * offset; the heap beside it gives the order, and is rebuilt from the state
 * after a restore.
 */
public final class Reorder {
    static final long BOUND_MS = Long.getLong("bound", 5000);
    static final int MAX_PARALLELISM = 128;

    static final class Sort extends KeyedProcessFunction<Integer, Held, Held> {
        private final boolean offHeap; // then the heap has only the order
        private transient MapState<Long, Held> held;
        private transient ValueState<Long> newest;
        private transient Map<Integer, Partition> partitions;

        /** What is derived from the state of a key. */
        static final class Partition {
            final PriorityQueue<Held> order = new PriorityQueue<>(1 << 16);
            long newest = Long.MIN_VALUE;
        }

        Sort(boolean offHeap) {
            this.offHeap = offHeap;
        }

        @Override
        public void open(OpenContext context) {
            held = getRuntimeContext().getMapState(new MapStateDescriptor<>("held", Types.LONG, new Held.Type()));
            newest = getRuntimeContext().getState(new ValueStateDescriptor<>("newest", Types.LONG));
            partitions = new HashMap<>();
        }

        @Override
        public void processElement(Held r, Context context, Collector<Held> out) throws Exception {
            Partition p = partitions.get(r.partition());
            if (p == null) {
                partitions.put(r.partition(), p = restore());
            }
            if (p.newest != Long.MIN_VALUE && r.time() < p.newest - BOUND_MS) {
                out.collect(r.asLate());
                return;
            }
            held.put(r.offset(), r);
            p.order.add(offHeap ? r.place() : r);
            if (r.time() <= p.newest) {
                return;
            }
            newest.update(p.newest = r.time());
            while (!p.order.isEmpty() && p.order.peek().time() < p.newest - BOUND_MS) {
                Held due = p.order.poll();
                out.collect(offHeap ? held.get(due.offset()) : due);
                held.remove(due.offset());
            }
        }

        private Partition restore() throws Exception {
            Partition p = new Partition();
            if (newest.value() != null) {
                p.newest = newest.value();
                held.values().forEach(r -> p.order.add(offHeap ? r.place() : r));
            }
            return p;
        }
    }

    static final class Decode implements KafkaRecordDeserializationSchema<Held> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> r, Collector<Held> out) {
            out.collect(Held.of(r));
        }

        @Override
        public TypeInformation<Held> getProducedType() {
            return new Held.Type();
        }
    }

    /** One sink for both outputs: a second one would cost a transaction more per checkpoint. */
    record Encode(String ordered, String late) implements KafkaRecordSerializationSchema<Held>, KafkaDatasetFacetProvider {
        @Override
        public ProducerRecord<byte[], byte[]> serialize(Held r, KafkaSinkContext context, Long timestamp) {
            return r.to(r.late() ? late : ordered);
        }

        /** With pooled transactional ids the sink looks for old transactions on these topics. */
        @Override
        public Optional<KafkaDatasetFacet> getKafkaDatasetFacet() {
            var topics = DefaultKafkaDatasetIdentifier.ofTopics(List.of(ordered, late));
            return Optional.of(new DefaultKafkaDatasetFacet(topics, new Properties()));
        }
    }

    /** Keys for the partitions, such that they are spread evenly over the parallel instances. */
    static int[] keys(int partitions, int parallelism) {
        int[] keys = new int[partitions];
        for (int p = 0, key = 0; p < partitions; key++) {
            if (KeyGroupRangeAssignment.assignKeyToParallelOperator(key, MAX_PARALLELISM, parallelism) == p % parallelism) {
                keys[p++] = key;
            }
        }
        return keys;
    }

    static Configuration config(boolean rocksdb, int parallelism, String checkpointMs, String dir) {
        Configuration c = new Configuration();
        c.setString("execution.checkpointing.interval", checkpointMs + "ms");
        c.setString("execution.checkpointing.storage", "filesystem");
        c.setString("execution.checkpointing.dir", "file://" + dir + "/checkpoints");
        c.setString("execution.checkpointing.incremental", Boolean.toString(rocksdb));
        c.setString("execution.buffer-timeout.interval", "10ms");
        c.setString("state.backend.type", rocksdb ? "rocksdb" : "hashmap");
        c.setString("pipeline.object-reuse", "true");
        c.setString("pipeline.max-parallelism", Integer.toString(MAX_PARALLELISM));
        c.setString("restart-strategy.type", "none");
        c.setString("taskmanager.numberOfTaskSlots", Integer.toString(parallelism));
        c.setString("taskmanager.memory.network.min", "32m");
        c.setString("taskmanager.memory.network.max", "32m");
        c.setString("taskmanager.memory.managed.size", rocksdb ? "256m" : "1m");
        c.setString("io.tmp.dirs", dir);
        return c;
    }

    /** Arguments: broker, topic, partitions, group, heap or rocksdb, checkpoint interval in ms, folder for state. */
    public static void main(String[] args) throws Exception {
        String broker = args[0];
        String topic = args[1];
        String group = args[3];
        int parallelism = Runtime.getRuntime().availableProcessors();
        boolean rocksdb = args[4].equals("rocksdb");
        int[] keys = keys(Integer.parseInt(args[2]), parallelism);

        var source = KafkaSource.<Held>builder()
            .setBootstrapServers(broker)
            .setTopics(topic)
            .setGroupId(group)
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setDeserializer(new Decode())
            .setProperty("isolation.level", "read_committed")
            .setProperty("partition.discovery.interval.ms", "-1")
            .setProperty("max.partition.fetch.bytes", Integer.toString(4 << 20))
            .build();

        Properties producer = new Properties();
        producer.setProperty("transaction.timeout.ms", "900000"); // the broker's maximum
        producer.setProperty("linger.ms", "20");
        producer.setProperty("batch.size", Integer.toString(256 << 10));
        producer.setProperty("buffer.memory", Integer.toString(128 << 20));
        producer.setProperty("compression.type", System.getProperty("codec", "none"));
        var sink = KafkaSink.<Held>builder()
            .setBootstrapServers(broker)
            .setKafkaProducerConfig(producer)
            .setRecordSerializer(new Encode(topic + ".ordered", topic + ".late"))
            .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
            .setTransactionalIdPrefix(group)
            .setTransactionNamingStrategy(TransactionNamingStrategy.POOLING)
            .build();

        var env = StreamExecutionEnvironment.createLocalEnvironment(
            parallelism, config(rocksdb, parallelism, args[5], args[6]));
        env.fromSource(source, WatermarkStrategy.noWatermarks(), topic, new Held.Type())
            .keyBy(r -> keys[r.partition()], Types.INT)
            .process(new Sort(rocksdb), new Held.Type())
            .sinkTo(sink);
        var job = env.executeAsync("reorder");
        while (job.getJobStatus().get() != JobStatus.RUNNING) {
            Thread.sleep(10);
        }
        System.out.println("ready");
        job.getJobExecutionResult().get(); // a job that fails ends the process
    }
}
