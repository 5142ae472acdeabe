import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Prints the records of a topic, as PARTITION KEY VALUE:
 *
 * <pre>
 * java -cp 'kafka/libs/*' Consumer.java BROKERS GROUP TOPIC
 * java -cp 'kafka/libs/*' Consumer.java localhost:9092 billing payments
 * java -cp 'kafka/libs/*' Consumer.java localhost:9092 billing payments.ordered
 * </pre>
 *
 * It knows nothing of Tidemark: of the last two the second prints in order of event time.
 */
public class Consumer {
    public static void main(String[] args) {
        if (args.length != 3) {
            System.err.println("usage: Consumer.java BROKERS GROUP TOPIC");
            System.exit(2);
        }
        Properties p = new Properties();
        p.put("bootstrap.servers", args[0]);
        p.put("group.id", args[1]);
        p.put("isolation.level", "read_committed");
        p.put("auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(p, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(args[2]));
            while (true) {
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println(r.partition() + " " + r.key() + " " + r.value());
                }
            }
        }
    }
}
