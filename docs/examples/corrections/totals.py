"""Keeps the amounts of a topic in a table, from .ordered at once and from
.corrections later. The totals by key and minute, a view of it, are right at any
moment by what is known then, and never count a record twice:

    pip install confluent-kafka
    python totals.py BROKERS TOPIC DATABASE
    python totals.py localhost:9092 payments payments.db
    sqlite3 payments.db 'SELECT * FROM totals'

It may be killed at any moment. Why it is right is in docs/repair.md.
"""

import sqlite3
import sys

from confluent_kafka import Consumer, KafkaError, KafkaException

TABLES = """
CREATE TABLE IF NOT EXISTS events (
    part INTEGER, epoch INTEGER, source_offset INTEGER,  -- which record of the source it is
    key TEXT, at INTEGER, amount INTEGER,
    corrected INTEGER,                                   -- 1: it came too late
    PRIMARY KEY (part, epoch, source_offset));
CREATE VIEW IF NOT EXISTS totals AS
    SELECT key, at / 60000 * 60000 AS minute, SUM(amount) AS total, SUM(corrected) AS corrections
    FROM events GROUP BY key, minute;
"""

UPSERT = """
INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (part, epoch, source_offset) DO UPDATE SET
    key = excluded.key, at = excluded.at, amount = excluded.amount, corrected = excluded.corrected
"""


def header(r, name):
    """The last header of a name, which is Tidemark's where it has one."""
    return next((v.decode() for k, v in reversed(r.headers() or []) if k == name), None)


def row(r):
    at = int(header(r, "event-time") or r.timestamp()[1])
    return (
        r.partition(), int(header(r, "tidemark-epoch") or 0), int(header(r, "tidemark-source-offset")),
        (r.key() or b"").decode(), at, int(r.value()), int(header(r, "tidemark-correction") == "true"),
    )


def main(brokers, topic, database):
    db = sqlite3.connect(database)
    db.executescript(TABLES)
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": "totals-" + topic,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
        "topic.metadata.refresh.interval.ms": 5000,  # the first repair creates .corrections
    })
    consumer.subscribe([topic + ".ordered", topic + ".corrections"])
    while True:
        records = []
        for r in consumer.consume(1000, timeout=0.1):
            if not r.error():
                records.append(r)
            elif r.error().code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(r.error())
        if records:
            with db:  # before the commit: what is read again after a restart replaces itself
                db.executemany(UPSERT, map(row, records))
            consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
