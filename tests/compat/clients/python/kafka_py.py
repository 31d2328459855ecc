"""Operations of the scenarios with kafka-python."""

import logging
import sys

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from common import Program, headers_out, out, packed, record_line, unpacked

logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
# How a group came about is seen nowhere else.
logging.getLogger("kafka.coordinator").setLevel(logging.INFO)


def shown(record):
    return record_line(
        record.partition, record.offset, record.timestamp, record.key, record.value, record.headers or [])


def poll(consumer):
    """A member's poll: a connection lost while it asks for its coordinator comes out of it as an error to repeat."""
    try:
        return consumer.poll(1000)
    except KafkaError as error:
        if not error.retriable:
            raise
        logging.warning("poll: %s: %s", type(error).__name__, error)
        return {}


class Listener(ConsumerRebalanceListener):
    """Tells of assignments, and forgets what is to be committed for partitions that are gone."""

    def __init__(self, done):
        self.done = done

    def on_partitions_assigned(self, assigned):
        out({"assigned": [p.partition for p in assigned]})

    def on_partitions_revoked(self, revoked):
        out({"revoked": [p.partition for p in revoked]})
        self.forget(revoked)

    def on_partitions_lost(self, lost):
        out({"revoked": [p.partition for p in lost], "lost": True})
        self.forget(lost)

    def forget(self, places):
        for place in places:
            self.done.pop(place, None)


class KafkaPython(Program):
    def servers(self):
        return self.bootstrap.split(",")

    def consumer(self, **more):
        return KafkaConsumer(
            bootstrap_servers=self.servers(), enable_auto_commit=False, auto_offset_reset="earliest",
            metadata_max_age_ms=1000, allow_auto_create_topics=False, **more)

    def produce(self, topic, records, compression, idempotent):
        producer = KafkaProducer(
            bootstrap_servers=self.servers(), compression_type=None if compression == "none" else compression,
            enable_idempotence=idempotent, linger_ms=20)
        answers = [
            producer.send(
                topic, partition=record["partition"], key=unpacked(record["key"]), value=unpacked(record["value"]),
                headers=headers_out(record), timestamp_ms=record.get("timestamp"))
            for record in records]
        producer.flush(90)
        for answer in answers:
            told = answer.get(90)
            out({"partition": told.partition, "offset": told.offset})

    def read(self, topic, partition, first, count):
        consumer, place = self.consumer(), TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek(place, first)
        while count:
            if not self.left():
                raise TimeoutError(f"{count} records are missing")
            for found in consumer.poll(500, max_records=count).values():
                for record in found:
                    out(shown(record))
                    count -= 1
        consumer.close()

    def seek(self, topic, partition, times):
        consumer, place = self.consumer(), TopicPartition(topic, partition)
        for moment in times:
            found = consumer.offsets_for_times({place: moment})[place]
            out({"offset": found.offset if found else -1})
        consumer.close()

    def follow(self, topic, partition):
        consumer, place = self.consumer(), TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek(place, 0)
        while not self.over:
            for found in consumer.poll(200).values():
                for record in found:
                    out(shown(record))
        consumer.close()

    def stream(self, topic, partitions, per_second):
        producer = KafkaProducer(
            bootstrap_servers=self.servers(), enable_idempotence=True, linger_ms=5, delivery_timeout_ms=300_000)

        def told(number):
            return lambda place: out({"number": number, "partition": place.partition, "offset": place.offset})

        def failed(number):
            return lambda error: out({"number": number, "failed": f"{type(error).__name__}: {error}"})

        for number in self.paced(per_second):
            answer = producer.send(topic, partition=number % partitions, value=str(number).encode())
            answer.add_callback(told(number))
            answer.add_errback(failed(number))
        producer.flush(240)
        producer.close()

    def group(self, topic, group, mode, instance):
        assignor = CooperativeStickyAssignor if mode == "cooperative" else RangePartitionAssignor
        consumer = self.consumer(
            group_id=group, group_instance_id=instance, session_timeout_ms=10_000, heartbeat_interval_ms=1000,
            partition_assignment_strategy=[assignor])
        # A member that joins before it knows the topic joins once more when it does; where its poll ends just then, the
        # client forgets that it has joined, and falls silent.
        consumer.partitions_for_topic(topic)
        # A commit that failed is made up for by the next one.
        done = {}
        consumer.subscribe([topic], listener=Listener(done))
        while not self.over:
            for place, found in poll(consumer).items():
                for record in found:
                    out({"partition": record.partition, "offset": record.offset, "value": packed(record.value)})
                    done[place] = OffsetAndMetadata(record.offset + 1, "", -1)
            if done:
                try:
                    consumer.commit(done)
                    out({"committed": {place.partition: found.offset for place, found in done.items()}})
                    done.clear()
                except KafkaError as error:
                    out({"uncommitted": f"{type(error).__name__}: {error}"})
        consumer.close()
        out({"closed": True})

    def committed(self, topic, group, partitions):
        admin = KafkaAdminClient(bootstrap_servers=self.servers())
        found = admin.list_group_offsets([group])[group]
        for partition in range(partitions):
            place = found.get(TopicPartition(topic, partition))
            out({"offset": place.offset if place else -1})
        admin.close()

    def before(self):
        self.admin_client = KafkaAdminClient(bootstrap_servers=self.servers())

    def step_create(self, topic, partitions, configs):
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
        self.admin_client.create_topics({topic: wanted})
        return {}

    def step_describe(self, topic):
        found = self.admin_client.describe_topics([topic])[0]
        return {"partitions": len(found["partitions"])}

    def step_configs(self, topic):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        found = self.admin_client.describe_configs([resource], config_filter="all")["topic"][topic]
        return {"configs": {
            name: entry["value"] if isinstance(entry, dict) else entry for name, entry in found.items()}}

    def step_alter(self, topic, configs, removed):
        changes = {name: (AlterConfigOp.SET, value) for name, value in configs.items()}
        changes |= {name: (AlterConfigOp.DELETE, None) for name in removed}
        told = self.admin_client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, changes)], incremental=True)
        if told["topic"][topic] != "OK":
            raise RuntimeError(told["topic"][topic])
        return {}

    def step_partitions(self, topic, total):
        self.admin_client.create_partitions({topic: total})
        return {}

    def step_trim(self, topic, partition, before):
        place = TopicPartition(topic, partition)
        told = self.admin_client.delete_records({place: before}, timeout_ms=30_000)[place]
        return {"low": told["low_watermark"] if isinstance(told, dict) else told.low_watermark}

    def step_ends(self, topic, partition):
        place = TopicPartition(topic, partition)
        first = self.admin_client.list_partition_offsets({place: OffsetSpec.EARLIEST})[place].offset
        return {"first": first, "end": self.admin_client.list_partition_offsets({place: OffsetSpec.LATEST})[place].offset}

    def step_delete(self, topic):
        self.admin_client.delete_topics([topic])
        return {}

    def step_cluster(self):
        found = self.admin_client.describe_cluster()
        return {"nodes": len(found["brokers"]), "controller": found["controller_id"] >= 0}


KafkaPython.main()
