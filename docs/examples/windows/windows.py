"""Adds up the values of a topic's records by key, in the windows that Tidemark
says they are in, and writes every sum once its window is closed:

    pip install confluent-kafka
    python windows.py BROKERS TOPIC FAMILY OUTPUT
    python windows.py localhost:9092 payments tumbling:1m payments.sums

Tidemark runs with TIDEMARK_WINDOWS=FAMILY, a tumbling or hopping one. The rows it
writes are those of main.go beside this file; why it is right is in docs/windows.md.
"""

import sys
from collections import defaultdict

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

NEVER, FOREVER = -(2**63), 2**63 - 1


class Partition:
    """What is known of a partition of TOPIC.ordered."""

    def __init__(self, number, commit, write):
        self.number, self.write = number, write
        self.epoch, self.closed = map(int, commit.split()) if commit else (0, NEVER)
        self.open = {}  # window -> (offset of its first record, sum by key)
        self.next = None

    def take(self, r, windows):
        epoch = int(header(r, "tidemark-epoch") or 0)
        if epoch != self.epoch:  # no more comes of the one before
            self.close(FOREVER)
            self.epoch, self.closed = epoch, NEVER
        for start, end in windows:
            if end - 1 > self.closed:  # else it was read again after a restart, and is written
                first, sums = self.open.setdefault((start, end), (r.offset(), defaultdict(int)))
                sums[key(r)] += int(r.value())
        self.close(int(header(r, "tidemark-watermark") or self.closed))
        self.next = r.offset() + 1

    def close(self, watermark):
        for start, end in [w for w in self.open if w[1] - 1 <= watermark]:
            for k, total in self.open.pop((start, end))[1].items():
                self.write(row(self.number, self.epoch, start, end, "-", k), total)
        self.closed = max(self.closed, watermark)  # what is read again says less

    def commit(self, topic):
        offset = min([self.next] + [first for first, _ in self.open.values()])
        return TopicPartition(topic, self.number, offset, f"{self.epoch} {self.closed}")


def header(r, name):
    """The last header of a name, which is Tidemark's."""
    return next((v.decode() for k, v in reversed(r.headers() or []) if k == name), None)


def key(r):
    return (r.key() or b"").decode()


def row(partition, epoch, start, end, late, k):
    return f"{partition} {epoch} {start} {end} {late} {k}"


def main(brokers, topic, family, output):
    ordered, late = topic + ".ordered", topic + ".late"
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True})
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": "windows-" + topic,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
    })
    partitions, corrected = {}, {}

    def written(error, _):
        if error:
            raise KafkaException(error)

    def write(k, total):
        producer.produce(output, key=k, value=str(total), on_delivery=written)

    def windows(r):
        text = header(r, "tidemark-window-" + family)
        if text is None:  # the record is too large for it; or Tidemark runs without
            raise ValueError(f"{r.topic()} partition {r.partition()} offset {r.offset()} is in no window of {family}")
        return [tuple(map(int, pair.split(","))) for pair in text.split()]

    def correct(r):
        if header(r, "tidemark-late-reason") not in ("future", "invalid-time", "duplicate"):
            for start, end in windows(r):
                epoch, source = header(r, "tidemark-epoch") or 0, header(r, "tidemark-source-offset")
                write(row(r.partition(), epoch, start, end, source, key(r)), int(r.value()))
        corrected[r.partition()] = TopicPartition(late, r.partition(), r.offset() + 1)

    def assigned(_, parts):
        for p in consumer.committed(parts, timeout=30):
            if p.topic == ordered:
                partitions[p.partition] = Partition(p.partition, p.metadata, write)

    def revoked(_, parts):
        for p in parts:
            (partitions if p.topic == ordered else corrected).pop(p.partition, None)

    consumer.subscribe([ordered, late], on_assign=assigned, on_revoke=revoked, on_lost=revoked)
    while True:
        for r in consumer.consume(1000, timeout=0.1):
            if r.error():
                raise KafkaException(r.error())
            if r.topic() == ordered:
                partitions[r.partition()].take(r, windows(r))
            else:
                correct(r)
        producer.flush()  # before the commit: what is written again after a restart replaces itself
        offsets = [p.commit(ordered) for p in partitions.values() if p.next is not None]
        offsets += corrected.values()
        if offsets:
            consumer.commit(offsets=offsets, asynchronous=False)


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[3].startswith("sliding"):
        sys.exit("usage: windows.py BROKERS TOPIC FAMILY OUTPUT")
    main(*sys.argv[1:])
