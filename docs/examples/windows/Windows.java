import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/**
 * Adds up the values of a topic's records by key, in the windows that Tidemark says
 * they are in, and writes every sum once its window is closed:
 *
 * <pre>
 * java -cp 'kafka/libs/*' Windows.java BROKERS TOPIC FAMILY OUTPUT
 * java -cp 'kafka/libs/*' Windows.java localhost:9092 payments tumbling:1m payments.sums
 * </pre>
 *
 * Tidemark runs with TIDEMARK_WINDOWS=FAMILY, a tumbling or hopping one. The rows it
 * writes are those of main.go beside this file; why it is right is in docs/windows.md.
 */
public class Windows {
    record Window(long start, long end) {}

    /** An open window: the offset of its first record, and its sum by key. */
    record Sums(long first, Map<String, Long> byKey) {}

    interface Writer {
        void write(String key, long sum);
    }

    /** What is known of a partition of TOPIC.ordered. */
    static class Partition {
        final int number;
        final Writer out;
        final Map<Window, Sums> open = new HashMap<>();
        long epoch, closed = Long.MIN_VALUE, next = -1;

        Partition(int number, OffsetAndMetadata commit, Writer out) {
            this.number = number;
            this.out = out;
            if (commit != null && !commit.metadata().isEmpty()) {
                String[] numbers = commit.metadata().split(" ");
                epoch = Long.parseLong(numbers[0]);
                closed = Long.parseLong(numbers[1]);
            }
        }

        void take(ConsumerRecord<String, String> r, List<Window> in) {
            long now = number(r, "tidemark-epoch", 0);
            if (now != epoch) { // no more comes of the one before
                close(Long.MAX_VALUE);
                epoch = now;
                closed = Long.MIN_VALUE;
            }
            for (Window w : in) {
                if (w.end() - 1 > closed) { // else it was read again after a restart, and is written
                    open.computeIfAbsent(w, x -> new Sums(r.offset(), new TreeMap<>()))
                            .byKey().merge(key(r), Long.parseLong(r.value()), Long::sum);
                }
            }
            close(number(r, "tidemark-watermark", closed));
            next = r.offset() + 1;
        }

        void close(long watermark) {
            open.entrySet().removeIf(e -> {
                boolean due = e.getKey().end() - 1 <= watermark;
                if (due) {
                    e.getValue().byKey().forEach((key, sum) -> out.write(row(number, epoch, e.getKey(), "-", key), sum));
                }
                return due;
            });
            closed = Math.max(closed, watermark); // what is read again says less
        }

        OffsetAndMetadata commit() {
            long offset = open.values().stream().mapToLong(Sums::first).reduce(next, Math::min);
            return new OffsetAndMetadata(offset, epoch + " " + closed);
        }
    }

    /** The last header of a name, which is Tidemark's. */
    static String header(ConsumerRecord<?, ?> r, String name) {
        var h = r.headers().lastHeader(name);
        return h == null ? null : new String(h.value());
    }

    static long number(ConsumerRecord<?, ?> r, String name, long otherwise) {
        String text = header(r, name);
        return text == null ? otherwise : Long.parseLong(text);
    }

    static String key(ConsumerRecord<String, String> r) {
        return r.key() == null ? "" : r.key();
    }

    static List<Window> windows(ConsumerRecord<?, ?> r, String family) {
        String text = header(r, "tidemark-window-" + family);
        if (text == null) { // the record is too large for it; or Tidemark runs without
            throw new IllegalStateException(
                    r.topic() + " partition " + r.partition() + " offset " + r.offset() + " is in no window of " + family);
        }
        List<Window> in = new ArrayList<>();
        for (String pair : text.split(" ")) {
            String[] ends = pair.split(",");
            in.add(new Window(Long.parseLong(ends[0]), Long.parseLong(ends[1])));
        }
        return in;
    }

    static String row(int partition, long epoch, Window w, String late, String key) {
        return partition + " " + epoch + " " + w.start() + " " + w.end() + " " + late + " " + key;
    }

    /** Writes what a late record adds to its windows as rows of its own. */
    static void correct(ConsumerRecord<String, String> r, String family, Writer out) {
        String reason = header(r, "tidemark-late-reason");
        if (List.of("future", "invalid-time", "duplicate").contains(String.valueOf(reason))) {
            return; // it is not its lateness that is wrong
        }
        for (Window w : windows(r, family)) {
            out.write(row(r.partition(), number(r, "tidemark-epoch", 0), w, header(r, "tidemark-source-offset"), key(r)),
                    Long.parseLong(r.value()));
        }
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 4 || args[2].startsWith("sliding")) {
            System.err.println("usage: Windows.java BROKERS TOPIC FAMILY OUTPUT");
            System.exit(2);
        }
        String ordered = args[1] + ".ordered", late = args[1] + ".late", family = args[2], output = args[3];
        Properties p = new Properties();
        p.putAll(Map.of(
                "bootstrap.servers", args[0],
                "group.id", "windows-" + args[1],
                "isolation.level", "read_committed",
                "auto.offset.reset", "earliest",
                "enable.auto.commit", "false",
                "session.timeout.ms", "6000",
                "key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer",
                "value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer",
                "key.serializer", "org.apache.kafka.common.serialization.StringSerializer",
                "value.serializer", "org.apache.kafka.common.serialization.StringSerializer"));
        Map<TopicPartition, Partition> open = new HashMap<>();
        Map<TopicPartition, OffsetAndMetadata> commits = new HashMap<>();
        List<Future<?>> written = new ArrayList<>();
        try (var consumer = new KafkaConsumer<String, String>(p); var producer = new KafkaProducer<String, String>(p)) {
            Writer out = (key, sum) -> written.add(producer.send(new ProducerRecord<>(output, key, Long.toString(sum))));
            consumer.subscribe(List.of(ordered, late), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> parts) {
                    consumer.committed(Set.copyOf(parts)).forEach((part, commit) -> {
                        if (part.topic().equals(ordered)) {
                            open.put(part, new Partition(part.partition(), commit, out));
                        }
                    });
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> parts) {
                    open.keySet().removeAll(parts);
                    commits.keySet().removeAll(parts);
                }
            });
            while (true) {
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(100))) {
                    TopicPartition part = new TopicPartition(r.topic(), r.partition());
                    if (r.topic().equals(ordered)) {
                        open.get(part).take(r, windows(r, family));
                        commits.put(part, open.get(part).commit());
                    } else {
                        correct(r, family, out);
                        commits.put(part, new OffsetAndMetadata(r.offset() + 1));
                    }
                }
                for (Future<?> f : written) { // before the commit: what is written again after a restart replaces itself
                    f.get();
                }
                written.clear();
                consumer.commitSync(commits);
                commits.clear();
            }
        }
    }
}
