"""Prints the records of a topic, as PARTITION KEY VALUE:

    python3 consumer.py BROKERS GROUP TOPIC
    python3 consumer.py localhost:9092 billing payments
    python3 consumer.py localhost:9092 billing payments.ordered

It knows nothing of Tidemark: of the last two the second prints in order of event
time. Needs the package confluent-kafka.
"""

import sys

from confluent_kafka import Consumer, KafkaException

if len(sys.argv) != 4:
    sys.exit("usage: consumer.py BROKERS GROUP TOPIC")
brokers, group, topic = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": brokers,
    "group.id": group,
    "isolation.level": "read_committed",
    "auto.offset.reset": "earliest",
})
consumer.subscribe([topic])
while True:
    r = consumer.poll(1)
    if r is None:
        continue
    if r.error():
        raise KafkaException(r.error())
    print(r.partition(), r.key().decode(), r.value().decode(), flush=True)
