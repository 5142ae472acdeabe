import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Objects;

import org.apache.flink.api.common.serialization.SerializerConfig;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializer;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;

/**
 * A Kafka record on its way through the job. It never changes, so Flink may
 * share it instead of copying it; that is what the serializer is for.
 *
 * @param time the event time, ms
 * @param parts key, value, and name and value of each header
 */
record Held(int partition, long offset, long time, long timestamp, boolean late, byte[][] parts)
    implements Comparable<Held> {

    static Held of(ConsumerRecord<byte[], byte[]> r) {
        Header[] headers = r.headers().toArray();
        byte[][] parts = new byte[2 + 2 * headers.length][];
        parts[0] = r.key();
        parts[1] = r.value();
        long time = r.timestamp();
        for (int i = 0; i < headers.length; i++) {
            parts[2 + 2 * i] = headers[i].key().getBytes(StandardCharsets.UTF_8);
            parts[3 + 2 * i] = headers[i].value();
            if (headers[i].key().equals("event-time")) {
                time = decimal(headers[i].value());
            }
        }
        return new Held(r.partition(), r.offset(), time, r.timestamp(), false, parts);
    }

    private static long decimal(byte[] digits) {
        long n = 0;
        for (byte digit : digits) {
            n = 10 * n + (digit - '0');
        }
        return n;
    }

    Held asLate() {
        return new Held(partition, offset, time, timestamp, true, parts);
    }

    /** Returns the record without its bytes. */
    Held place() {
        return new Held(partition, offset, time, timestamp, late, null);
    }

    ProducerRecord<byte[], byte[]> to(String topic) {
        RecordHeaders headers = new RecordHeaders();
        for (int i = 2; i < parts.length; i += 2) {
            headers.add(new String(parts[i], StandardCharsets.UTF_8), parts[i + 1]);
        }
        return new ProducerRecord<>(topic, partition, timestamp, parts[0], parts[1], headers);
    }

    /** By event time; equal times by source offset. */
    @Override
    public int compareTo(Held o) {
        int byTime = Long.compare(time, o.time);
        return byTime != 0 ? byTime : Long.compare(offset, o.offset);
    }

    static final class Serializer extends TypeSerializerSingleton<Held> {
        static final Serializer INSTANCE = new Serializer();

        @Override
        public void serialize(Held r, DataOutputView out) throws IOException {
            out.writeInt(r.partition);
            out.writeLong(r.offset);
            out.writeLong(r.time);
            out.writeLong(r.timestamp);
            out.writeBoolean(r.late);
            out.writeInt(r.parts.length);
            for (byte[] part : r.parts) {
                out.writeInt(part == null ? -1 : part.length);
                if (part != null) {
                    out.write(part);
                }
            }
        }

        @Override
        public Held deserialize(DataInputView in) throws IOException {
            int partition = in.readInt();
            long offset = in.readLong();
            long time = in.readLong();
            long timestamp = in.readLong();
            boolean late = in.readBoolean();
            byte[][] parts = new byte[in.readInt()][];
            for (int i = 0; i < parts.length; i++) {
                int length = in.readInt();
                if (length >= 0) {
                    parts[i] = new byte[length];
                    in.readFully(parts[i]);
                }
            }
            return new Held(partition, offset, time, timestamp, late, parts);
        }

        @Override
        public void copy(DataInputView in, DataOutputView out) throws IOException {
            serialize(deserialize(in), out);
        }

        @Override
        public boolean isImmutableType() {
            return true;
        }

        @Override
        public Held createInstance() {
            return new Held(0, 0, 0, 0, false, new byte[2][]);
        }

        @Override
        public Held copy(Held r) {
            return r;
        }

        @Override
        public Held copy(Held r, Held reuse) {
            return r;
        }

        @Override
        public Held deserialize(Held reuse, DataInputView in) throws IOException {
            return deserialize(in);
        }

        @Override
        public int getLength() {
            return -1;
        }

        @Override
        public TypeSerializerSnapshot<Held> snapshotConfiguration() {
            return new Snapshot();
        }
    }

    public static final class Snapshot extends SimpleTypeSerializerSnapshot<Held> {
        public Snapshot() {
            super(() -> Serializer.INSTANCE);
        }
    }

    static final class Type extends TypeInformation<Held> {
        @Override
        public TypeSerializer<Held> createSerializer(SerializerConfig config) {
            return Serializer.INSTANCE;
        }

        @Override
        public Class<Held> getTypeClass() {
            return Held.class;
        }

        @Override
        public boolean isBasicType() {
            return false;
        }

        @Override
        public boolean isTupleType() {
            return false;
        }

        @Override
        public boolean isKeyType() {
            return false;
        }

        @Override
        public int getArity() {
            return 1;
        }

        @Override
        public int getTotalFields() {
            return 1;
        }

        @Override
        public boolean canEqual(Object o) {
            return o instanceof Type;
        }

        @Override
        public boolean equals(Object o) {
            return o instanceof Type;
        }

        @Override
        public int hashCode() {
            return Objects.hash(Type.class);
        }

        @Override
        public String toString() {
            return "Held";
        }
    }
}
