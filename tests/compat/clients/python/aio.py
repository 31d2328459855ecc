"""Operations of the scenarios with aiokafka."""

import asyncio
import logging
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, for_code

from common import Program, headers_out, out, packed, record_line, unpacked

logging.basicConfig(stream=sys.stderr, level=logging.WARNING)


def shown(record):
    return record_line(
        record.partition, record.offset, record.timestamp, record.key, record.value, record.headers or [])


class Listener(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        out({"assigned": sorted(p.partition for p in assigned)})

    def on_partitions_revoked(self, revoked):
        out({"revoked": sorted(p.partition for p in revoked)})


def well(errors):
    for error in errors:
        if error[1]:
            raise for_code(error[1])(error[2] if len(error) > 2 else None)


class Aio(Program):
    def perform(self, operation, request):
        if operation == "admin":
            asyncio.run(self.admin_steps(request["steps"]))
            return
        if "from" in request:
            request["first"] = request.pop("from")
        asyncio.run(getattr(self, operation)(**request))

    async def consumer(self, *topics, **more):
        consumer = AIOKafkaConsumer(
            *topics, bootstrap_servers=self.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest",
            metadata_max_age_ms=1000, **more)
        await consumer.start()
        return consumer

    async def producer(self, **more):
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, **more)
        await producer.start()
        return producer

    async def produce(self, topic, records, compression, idempotent):
        producer = await self.producer(
            compression_type=None if compression == "none" else compression, enable_idempotence=idempotent, linger_ms=20)
        answers = [
            await producer.send(
                topic, partition=record["partition"], key=unpacked(record["key"]), value=unpacked(record["value"]),
                headers=headers_out(record), timestamp_ms=record.get("timestamp"))
            for record in records]
        for answer in answers:
            told = await answer
            out({"partition": told.partition, "offset": told.offset})
        await producer.stop()

    async def read(self, topic, partition, first, count):
        consumer, place = await self.consumer(), TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek(place, first)
        while count:
            if not self.left():
                raise TimeoutError(f"{count} records are missing")
            for found in (await consumer.getmany(timeout_ms=500, max_records=count)).values():
                for record in found:
                    out(shown(record))
                    count -= 1
        await consumer.stop()

    async def seek(self, topic, partition, times):
        consumer, place = await self.consumer(), TopicPartition(topic, partition)
        consumer.assign([place])
        for moment in times:
            found = (await consumer.offsets_for_times({place: moment}))[place]
            out({"offset": found.offset if found else -1})
        await consumer.stop()

    async def follow(self, topic, partition):
        consumer, place = await self.consumer(), TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek(place, 0)
        while not self.over:
            for found in (await consumer.getmany(timeout_ms=200)).values():
                for record in found:
                    out(shown(record))
        await consumer.stop()

    async def stream(self, topic, partitions, per_second):
        # aiokafka gives a batch up after request_timeout_ms, whatever it has tried.
        producer = await self.producer(enable_idempotence=True, linger_ms=5, request_timeout_ms=120_000)
        clock, started, number, open_ = asyncio.get_running_loop(), None, 0, set()

        def told(number):
            def answer(future):
                open_.discard(future)
                if future.exception():
                    out({"number": number, "failed": repr(future.exception())})
                else:
                    place = future.result()
                    out({"number": number, "partition": place.partition, "offset": place.offset})
            return answer

        started = clock.time()
        while not self.over:
            future = await producer.send(topic, partition=number % partitions, value=str(number).encode())
            open_.add(future)
            future.add_done_callback(told(number))
            number += 1
            await asyncio.sleep(max(0, number / per_second - (clock.time() - started)))
        await producer.flush()
        while open_:
            await asyncio.sleep(0.05)
        await producer.stop()

    async def group(self, topic, group, mode, instance):
        assert mode != "cooperative"
        consumer = await self.consumer(
            group_id=group, group_instance_id=instance, session_timeout_ms=10_000, heartbeat_interval_ms=1000,
            partition_assignment_strategy=[RangePartitionAssignor])
        consumer.subscribe([topic], listener=Listener())
        while not self.over:
            done = {}
            for place, found in (await consumer.getmany(timeout_ms=200)).items():
                for record in found:
                    out({"partition": record.partition, "offset": record.offset, "value": packed(record.value)})
                    done[place] = record.offset + 1
            if done:
                try:
                    await consumer.commit(done)
                    out({"committed": {place.partition: offset for place, offset in done.items()}})
                except KafkaError as error:
                    out({"uncommitted": repr(error)})
        await consumer.stop()
        out({"closed": True})

    async def committed(self, topic, group, partitions):
        admin = await self.admin_client()
        found = await admin.list_consumer_group_offsets(group)
        for partition in range(partitions):
            place = found.get(TopicPartition(topic, partition))
            out({"offset": place.offset if place else -1})
        await admin.close()

    async def admin_client(self):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        return admin

    async def admin_steps(self, steps):
        self.admin = await self.admin_client()
        for step in steps:
            step = dict(step)
            name = step.pop("do")
            try:
                out({"did": name, **await getattr(self, "step_" + name)(**step)})
            except NotImplementedError as error:
                out({"did": name, "cannot": str(error)})
            except Exception as error:  # pylint: disable=broad-except
                out({"did": name, "refused": f"{type(error).__name__}: {error}"})
        await self.admin.close()

    async def step_create(self, topic, partitions, configs):
        well((await self.admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])).topic_errors)
        return {}

    async def step_describe(self, topic):
        found = (await self.admin.describe_topics([topic]))[0]
        if found["error_code"]:
            raise for_code(found["error_code"])()
        return {"partitions": len(found["partitions"])}

    async def step_configs(self, topic):
        found = (await self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))[0].resources[0]
        if found[0]:
            raise for_code(found[0])(found[1])
        return {"configs": {entry[0]: entry[1] for entry in found[4]}}

    async def step_alter(self, topic, configs, removed):
        # The old call, which takes back whatever it does not name; aiokafka has no other.
        assert not set(removed) & set(configs)
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs)
        for code, message, *_ in (await self.admin.alter_configs([resource]))[0].resources:
            if code:
                raise for_code(code)(message)
        return {}

    async def step_partitions(self, topic, total):
        await self.admin.create_partitions({topic: NewPartitions(total)})
        return {}

    async def step_trim(self, topic, partition, before):
        place = TopicPartition(topic, partition)
        return {"low": (await self.admin.delete_records({place: RecordsToDelete(before)}))[place]}

    async def step_ends(self, topic, partition):
        consumer, place = await self.consumer(), TopicPartition(topic, partition)
        ends = {
            "first": (await consumer.beginning_offsets([place]))[place],
            "end": (await consumer.end_offsets([place]))[place]}
        await consumer.stop()
        return ends

    async def step_delete(self, topic):
        well((await self.admin.delete_topics([topic])).topic_error_codes)
        return {}

    async def step_cluster(self):
        found = await self.admin.describe_cluster()
        return {"nodes": len(found["brokers"]), "controller": found["controller_id"] >= 0}


Aio.main()
