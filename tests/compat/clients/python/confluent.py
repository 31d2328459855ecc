"""Operations of the scenarios with confluent-kafka-python."""

import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType)

from common import Program, headers_out, out, packed, record_line, unpacked


def consumer(bootstrap, **more):
    return Consumer({
        "bootstrap.servers": bootstrap, "group.id": "unused", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 1000, **more})


def shown(message):
    return record_line(
        message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(),
        message.headers() or [])


class Confluent(Program):
    def produce(self, topic, records, compression, idempotent):
        producer = Producer({
            "bootstrap.servers": self.bootstrap, "compression.type": compression,
            "enable.idempotence": idempotent, "linger.ms": 20})
        answers = [None] * len(records)

        def told(number):
            def answer(error, message):
                answers[number] = {"error": str(error)} if error else {
                    "partition": message.partition(), "offset": message.offset()}
            return answer

        for number, record in enumerate(records):
            stamp = record.get("timestamp")
            producer.produce(
                topic, partition=record["partition"], key=unpacked(record["key"]), value=unpacked(record["value"]),
                headers=headers_out(record), on_delivery=told(number), **({} if stamp is None else {"timestamp": stamp}))
        producer.flush(90)
        for answer in answers:
            out(answer or {"error": "no answer"})

    def read(self, topic, partition, first, count):
        source = consumer(self.bootstrap)
        source.assign([TopicPartition(topic, partition, first)])
        while count:
            message = source.poll(self.left())
            if message is None:
                raise TimeoutError(f"{count} records are missing")
            if message.error():
                raise KafkaException(message.error())
            out(shown(message))
            count -= 1
        source.close()

    def seek(self, topic, partition, times):
        source = consumer(self.bootstrap)
        for moment in times:
            found = self.at_time(source, TopicPartition(topic, partition, moment))
            if found.error:
                raise KafkaException(found.error)
            # librdkafka says "the end" where there is no such record.
            out({"offset": max(found.offset, -1)})
        source.close()

    @staticmethod
    def at_time(source, place):
        try:
            return source.offsets_for_times([place], timeout=30)[0]
        except KafkaException as error:
            # librdkafka does not repeat this when it drops the broker that it asked.
            print("again:", error, file=sys.stderr)
            return source.offsets_for_times([place], timeout=30)[0]

    def follow(self, topic, partition):
        source = consumer(self.bootstrap, **{"allow.auto.create.topics": False})
        source.assign([TopicPartition(topic, partition, 0)])
        while not self.over:
            message = source.poll(0.2)
            if message is not None and not message.error():
                out(shown(message))
        source.close()

    def stream(self, topic, partitions, per_second):
        producer = Producer({
            "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 5,
            "message.timeout.ms": 300_000})

        def told(number):
            def answer(error, message):
                out({"number": number, "failed": str(error)} if error else {
                    "number": number, "partition": message.partition(), "offset": message.offset()})
            return answer

        for number in self.paced(per_second):
            producer.produce(topic, partition=number % partitions, value=str(number), on_delivery=told(number))
            producer.poll(0)
        producer.flush(240)

    def group(self, topic, group, mode, instance):
        settings = {
            "group.id": group, "session.timeout.ms": 10_000, "heartbeat.interval.ms": 1000,
            "partition.assignment.strategy": "cooperative-sticky" if mode == "cooperative" else "range"}
        if instance:
            settings["group.instance.id"] = instance
        source = consumer(self.bootstrap, **settings)
        source.subscribe(
            [topic],
            on_assign=lambda _, found: out({"assigned": [p.partition for p in found]}),
            on_revoke=lambda _, found: out({"revoked": [p.partition for p in found]}),
            on_lost=lambda _, found: out({"revoked": [p.partition for p in found], "lost": True}))
        while not self.over:
            messages = source.consume(100, 0.2)
            done = {}
            for message in messages:
                if message.error():
                    continue
                out({"partition": message.partition(), "offset": message.offset(), "value": packed(message.value())})
                done[message.partition()] = message.offset() + 1
            if done:
                self.commit(source, topic, done)
        source.close()
        out({"closed": True})

    @staticmethod
    def commit(source, topic, done):
        try:
            answer = source.commit(offsets=[TopicPartition(topic, p, o) for p, o in done.items()], asynchronous=False)
            out({"committed": {p.partition: p.offset for p in answer if not p.error}})
        except KafkaException as error:
            out({"uncommitted": str(error)})

    def committed(self, topic, group, partitions):
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        wanted = [TopicPartition(topic, p) for p in range(partitions)]
        asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)])
        found = {p.partition: p.offset for p in asked[group].result(60).topic_partitions}
        for partition in range(partitions):
            out({"offset": max(found.get(partition, -1), -1)})

    # Steps of `admin`.

    def before(self):
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap})

    def step_create(self, topic, partitions, configs):
        self.admin.create_topics([NewTopic(topic, partitions, 1, config=configs)])[topic].result(30)
        return {}

    def step_describe(self, topic):
        found = self.admin.list_topics(timeout=30).topics
        return {"partitions": len(found[topic].partitions) if topic in found else 0}

    def step_configs(self, topic):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        found = self.admin.describe_configs([resource])[resource].result(30)
        return {"configs": {name: entry.value for name, entry in found.items()}}

    def step_alter(self, topic, configs, removed):
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in configs.items()]
        entries += [ConfigEntry(name, None, incremental_operation=AlterConfigOpType.DELETE) for name in removed]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result(30)
        return {}

    def step_partitions(self, topic, total):
        self.admin.create_partitions([NewPartitions(topic, total)])[topic].result(30)
        return {}

    def step_trim(self, topic, partition, before):
        wanted = TopicPartition(topic, partition, before)
        return {"low": self.admin.delete_records([wanted])[wanted].result(30).low_watermark}

    def step_ends(self, topic, partition):
        wanted = TopicPartition(topic, partition)
        first = self.admin.list_offsets({wanted: OffsetSpec.earliest()})[wanted].result(30).offset
        return {"first": first, "end": self.admin.list_offsets({wanted: OffsetSpec.latest()})[wanted].result(30).offset}

    def step_delete(self, topic):
        self.admin.delete_topics([topic])[topic].result(30)
        return {}

    def step_cluster(self):
        found = self.admin.describe_cluster().result(30)
        return {"nodes": len(found.nodes), "controller": found.controller is not None}

    def step_groups(self):
        found = self.admin.list_consumer_groups().result(30)
        return {"groups": [group.group_id for group in found.valid]}

    def step_describe_group(self, group):
        found = self.admin.describe_consumer_groups([group])[group].result(30)
        return {"state": found.state.name.lower(), "members": len(found.members)}

    def step_delete_group(self, group):
        self.admin.delete_consumer_groups([group])[group].result(30)
        return {}


Confluent.main()
