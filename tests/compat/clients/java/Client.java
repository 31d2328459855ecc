import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Operations of the scenarios with the Java client. */
public class Client {
    static final ObjectMapper JSON = new ObjectMapper();
    static final String RANGE = "org.apache.kafka.clients.consumer.RangeAssignor";
    static final String COOPERATIVE = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
    static volatile boolean over;

    final String bootstrap;
    final JsonNode asked;

    Client(String bootstrap, JsonNode asked) {
        this.bootstrap = bootstrap;
        this.asked = asked;
    }

    public static void main(String[] arguments) throws Exception {
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var client = new Client(arguments[1], JSON.readTree(input.readLine()));
        var watch = new Thread(() -> {
            try {
                while (input.readLine() != null) { }
            } catch (java.io.IOException error) {
                // The end of the input, whatever ended it.
            }
            over = true;
        });
        watch.setDaemon(true);
        watch.start();
        try {
            client.perform(arguments[0]);
            System.exit(0);
        } catch (Throwable error) {
            error.printStackTrace();
            out(Map.of("error", error.toString()));
            System.exit(1);
        }
    }

    void perform(String operation) throws Exception {
        switch (operation) {
            case "produce" -> produce();
            case "read" -> read();
            case "seek" -> seek();
            case "follow" -> follow();
            case "stream" -> stream();
            case "group" -> group();
            case "committed" -> committed();
            case "admin" -> admin();
            case "startup" -> new Startup(bootstrap).run();
            case "streams" -> Words.run(bootstrap, asked.get("source").asText(), asked.get("result").asText());
            default -> throw new IllegalArgumentException(operation);
        }
    }

    static synchronized void out(Map<String, ?> line) {
        try {
            System.out.println(JSON.writeValueAsString(line));
            System.out.flush();
        } catch (java.io.IOException error) {
            throw new IllegalStateException(error);
        }
    }

    static Properties settings(String bootstrap, Map<String, ?> more) {
        var settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.putAll(more);
        return settings;
    }

    KafkaProducer<byte[], byte[]> producer(Map<String, ?> more) {
        return new KafkaProducer<>(settings(bootstrap, more), new ByteArraySerializer(), new ByteArraySerializer());
    }

    KafkaConsumer<byte[], byte[]> consumer(Map<String, ?> more) {
        var all = new HashMap<String, Object>(Map.of(
            "enable.auto.commit", "false", "auto.offset.reset", "earliest", "metadata.max.age.ms", "1000",
            "allow.auto.create.topics", "false"));
        all.putAll(more);
        return new KafkaConsumer<>(settings(bootstrap, all), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    String topic() {
        return asked.get("topic").asText();
    }

    TopicPartition place() {
        return new TopicPartition(topic(), asked.get("partition").asInt());
    }

    static byte[] bytes(JsonNode text) {
        return text == null || text.isNull() ? null : HexFormat.of().parseHex(text.asText());
    }

    static String hex(byte[] bytes) {
        return bytes == null ? null : HexFormat.of().formatHex(bytes);
    }

    static Map<String, Object> shown(ConsumerRecord<byte[], byte[]> record) {
        var headers = new ArrayList<List<String>>();
        for (Header header : record.headers()) {
            var pair = new ArrayList<String>();
            pair.add(header.key());
            pair.add(hex(header.value()));
            headers.add(pair);
        }
        var line = new LinkedHashMap<String, Object>();
        line.put("partition", record.partition());
        line.put("offset", record.offset());
        line.put("timestamp", record.timestamp());
        line.put("key", hex(record.key()));
        line.put("value", hex(record.value()));
        line.put("headers", headers);
        return line;
    }

    void produce() throws Exception {
        var settings = Map.of(
            "compression.type", asked.get("compression").asText(), "linger.ms", "20",
            "enable.idempotence", asked.get("idempotent").asText());
        try (var producer = producer(settings)) {
            var answers = new ArrayList<Future<RecordMetadata>>();
            for (JsonNode record : asked.get("records")) {
                var headers = new ArrayList<Header>();
                for (JsonNode header : record.get("headers")) {
                    headers.add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
                }
                var stamp = record.get("timestamp");
                answers.add(producer.send(new ProducerRecord<>(
                    topic(), record.get("partition").asInt(), stamp == null ? null : stamp.asLong(),
                    bytes(record.get("key")), bytes(record.get("value")), headers)));
            }
            for (var answer : answers) {
                out(Map.of("partition", answer.get().partition(), "offset", answer.get().offset()));
            }
        }
    }

    void read() {
        int missing = asked.get("count").asInt();
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        try (var consumer = consumer(Map.of("max.poll.records", "100"))) {
            consumer.assign(List.of(place()));
            consumer.seek(place(), asked.get("from").asLong());
            while (missing > 0) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(missing + " records are missing");
                }
                for (var record : consumer.poll(Duration.ofMillis(500))) {
                    if (missing > 0) {
                        out(shown(record));
                        missing--;
                    }
                }
            }
        }
    }

    void seek() {
        try (var consumer = consumer(Map.of())) {
            for (JsonNode moment : asked.get("times")) {
                var found = consumer.offsetsForTimes(Map.of(place(), moment.asLong())).get(place());
                out(Map.of("offset", found == null ? -1 : found.offset()));
            }
        }
    }

    void follow() {
        try (var consumer = consumer(Map.of())) {
            consumer.assign(List.of(place()));
            consumer.seek(place(), 0);
            while (!over) {
                consumer.poll(Duration.ofMillis(200)).forEach(record -> out(shown(record)));
            }
        }
    }

    void stream() throws Exception {
        int partitions = asked.get("partitions").asInt();
        double perSecond = asked.get("per_second").asDouble();
        try (var producer = producer(Map.of("linger.ms", "5", "delivery.timeout.ms", "300000"))) {
            long started = System.nanoTime();
            for (int at = 0; !over; at++) {
                int number = at;
                var value = Integer.toString(number).getBytes(StandardCharsets.UTF_8);
                producer.send(new ProducerRecord<>(topic(), number % partitions, null, value), (place, error) ->
                    out(error == null
                        ? Map.of("number", number, "partition", place.partition(), "offset", place.offset())
                        : Map.of("number", number, "failed", error.toString())));
                long ahead = (long) ((number + 1) / perSecond * 1e9) - (System.nanoTime() - started);
                if (ahead > 0) {
                    Thread.sleep(ahead / 1_000_000, (int) (ahead % 1_000_000));
                }
            }
            producer.flush();
        }
    }

    static List<Integer> numbers(Collection<TopicPartition> places) {
        return places.stream().map(TopicPartition::partition).sorted().toList();
    }

    void group() {
        var settings = new HashMap<String, Object>(Map.of(
            "group.id", asked.get("group").asText(), "session.timeout.ms", "10000", "heartbeat.interval.ms", "1000",
            "partition.assignment.strategy", asked.get("mode").asText().equals("cooperative") ? COOPERATIVE : RANGE));
        if (!asked.get("instance").isNull()) {
            settings.put("group.instance.id", asked.get("instance").asText());
        }
        // A commit that failed is made up for by the next one, unless another member has the partition by then.
        var done = new HashMap<TopicPartition, OffsetAndMetadata>();
        try (var consumer = consumer(settings)) {
            consumer.subscribe(List.of(topic()), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> places) {
                    out(Map.of("assigned", numbers(places)));
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> places) {
                    done.keySet().removeAll(places);
                    out(Map.of("revoked", numbers(places)));
                }
            });
            while (!over) {
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    out(Map.of("partition", record.partition(), "offset", record.offset(), "value", hex(record.value())));
                    var place = new TopicPartition(topic(), record.partition());
                    done.put(place, new OffsetAndMetadata(record.offset() + 1));
                }
                if (!done.isEmpty()) {
                    commit(consumer, done);
                }
            }
        }
        out(Map.of("closed", true));
    }

    static void commit(KafkaConsumer<byte[], byte[]> consumer, Map<TopicPartition, OffsetAndMetadata> done) {
        try {
            consumer.commitSync(done);
            var told = new LinkedHashMap<String, Long>();
            done.forEach((place, offset) -> told.put(Integer.toString(place.partition()), offset.offset()));
            out(Map.of("committed", told));
            done.clear();
        } catch (KafkaException error) {
            out(Map.of("uncommitted", error.toString()));
        }
    }

    void committed() throws Exception {
        try (var admin = Admin.create(settings(bootstrap, Map.of()))) {
            var found = admin.listConsumerGroupOffsets(asked.get("group").asText()).partitionsToOffsetAndMetadata().get();
            IntStream.range(0, asked.get("partitions").asInt()).forEach(partition -> {
                var place = found.get(new TopicPartition(topic(), partition));
                out(Map.of("offset", place == null ? -1 : place.offset()));
            });
        }
    }

    void admin() {
        try (var admin = Admin.create(settings(bootstrap, Map.of()))) {
            for (JsonNode step : asked.get("steps")) {
                var line = new LinkedHashMap<String, Object>(Map.of("did", step.get("do").asText()));
                try {
                    line.putAll(step(admin, step));
                } catch (Exception error) {
                    line.put("refused", error.toString());
                }
                out(line);
            }
        }
    }

    static Map<String, String> texts(JsonNode object) {
        var found = new LinkedHashMap<String, String>();
        object.fields().forEachRemaining(entry -> found.put(entry.getKey(), entry.getValue().asText()));
        return found;
    }

    static Map<String, Object> step(Admin admin, JsonNode step) throws Exception {
        var topic = step.has("topic") ? step.get("topic").asText() : null;
        switch (step.get("do").asText()) {
            case "create" -> {
                var wanted = new NewTopic(topic, step.get("partitions").asInt(), (short) 1).configs(texts(step.get("configs")));
                admin.createTopics(List.of(wanted)).all().get();
            }
            case "describe" -> {
                return Map.of("partitions", admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size());
            }
            case "configs" -> {
                return Map.of("configs", configs(admin, new ConfigResource(ConfigResource.Type.TOPIC, topic)));
            }
            case "alter" -> alter(admin, topic, step);
            case "partitions" -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(step.get("total").asInt()))).all().get();
            case "trim" -> {
                var place = new TopicPartition(topic, step.get("partition").asInt());
                var wanted = Map.of(place, RecordsToDelete.beforeOffset(step.get("before").asLong()));
                return Map.of("low", admin.deleteRecords(wanted).lowWatermarks().get(place).get().lowWatermark());
            }
            case "ends" -> {
                var place = new TopicPartition(topic, step.get("partition").asInt());
                var first = admin.listOffsets(Map.of(place, OffsetSpec.earliest())).partitionResult(place).get().offset();
                var end = admin.listOffsets(Map.of(place, OffsetSpec.latest())).partitionResult(place).get().offset();
                return Map.of("first", first, "end", end);
            }
            case "delete" -> admin.deleteTopics(List.of(topic)).all().get();
            case "cluster" -> {
                var found = admin.describeCluster();
                return Map.of("nodes", found.nodes().get().size(), "controller", found.controller().get() != null);
            }
            default -> throw new IllegalArgumentException(step.toString());
        }
        return Map.of();
    }

    static Map<String, String> configs(Admin admin, ConfigResource resource) throws Exception {
        var told = new LinkedHashMap<String, String>();
        admin.describeConfigs(Set.of(resource)).all().get().get(resource).entries().forEach(entry -> told.put(entry.name(), entry.value()));
        return told;
    }

    static void alter(Admin admin, String topic, JsonNode step) throws Exception {
        var changes = new ArrayList<AlterConfigOp>();
        texts(step.get("configs")).forEach((name, value) ->
            changes.add(new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET)));
        step.get("removed").forEach(name ->
            changes.add(new AlterConfigOp(new ConfigEntry(name.asText(), null), AlterConfigOp.OpType.DELETE)));
        admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), changes)).all().get();
    }
}
