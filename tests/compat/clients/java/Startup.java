import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ClassicGroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** What Connect, Schema Registry and Streams ask of a cluster as they start, one step after another. */
class Startup {
    interface Step {
        void run() throws Exception;
    }

    final String bootstrap;
    final String mark = UUID.randomUUID().toString().substring(0, 8);
    final Admin admin;

    Startup(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Client.settings(bootstrap, Map.of("client.id", "startup|sh_test=1")));
    }

    void run() {
        connect();
        registry();
        streams();
        groups();
        admin.close();
    }

    void step(String name, Step step) {
        var line = new LinkedHashMap<String, Object>(Map.of("did", name));
        try {
            step.run();
        } catch (Throwable error) {
            error.printStackTrace();
            var cause = error.getCause() == null ? error : error.getCause();
            line.put("refused", cause.toString());
        }
        Client.out(line);
    }

    static void demand(boolean holds, String message) {
        if (!holds) {
            throw new IllegalStateException(message);
        }
    }

    void make(String name, int partitions, int replicas, Map<String, String> configs) throws Exception {
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) replicas).configs(configs))).all().get();
    }

    String config(ConfigResource.Type type, String name, String key) throws Exception {
        return Client.configs(admin, new ConfigResource(type, name)).get(key);
    }

    /** Connect: three topics with three replicas that are compacted, which it checks by their settings. */
    void connect() {
        step("connect: the cluster has an id", () -> demand(admin.describeCluster().clusterId().get() != null, "no id"));
        for (var topic : List.of("configs", "offsets", "status")) {
            var name = "connect-" + topic + "-" + mark;
            step("connect: make the topic for " + topic, () ->
                make(name, topic.equals("configs") ? 1 : 5, 3, Map.of("cleanup.policy", "compact", "min.insync.replicas", "1")));
            step("connect: the policy for " + topic + " is compact", () -> {
                var told = config(ConfigResource.Type.TOPIC, name, "cleanup.policy");
                demand("compact".equals(told), "cleanup.policy is " + told);
            });
        }
        step("connect: a topic that is there already is said to be", () -> {
            try {
                make("connect-configs-" + mark, 1, 3, Map.of("cleanup.policy", "compact"));
                throw new IllegalStateException("made twice");
            } catch (java.util.concurrent.ExecutionException error) {
                demand(error.getCause() instanceof org.apache.kafka.common.errors.TopicExistsException, error.toString());
            }
        });
        step("connect: write and read back the topic for configs", () -> log("connect-configs-" + mark));
        step("connect: the ends of the offsets topic", () -> {
            var places = new LinkedHashMap<TopicPartition, OffsetSpec>();
            for (int at = 0; at < 5; at++) {
                places.put(new TopicPartition("connect-offsets-" + mark, at), OffsetSpec.latest());
            }
            demand(admin.listOffsets(places).all().get().size() == 5, "not all");
        });
    }

    /** Schema Registry: one compacted topic, written without idempotence, read from its start. */
    void registry() {
        var name = "_schemas-" + mark;
        step("registry: the topics by name", () -> admin.listTopics().names().get());
        step("registry: the nodes", () -> demand(!admin.describeCluster().nodes().get().isEmpty(), "none"));
        step("registry: make the topic", () -> make(name, 1, 3, Map.of("cleanup.policy", "compact")));
        step("registry: the topic has one partition", () ->
            demand(admin.describeTopics(Set.of(name)).allTopicNames().get().get(name).partitions().size() == 1, "not one"));
        step("registry: the policy is compact", () -> {
            var told = config(ConfigResource.Type.TOPIC, name, "cleanup.policy");
            demand("compact".equals(told), "cleanup.policy is " + told);
        });
        step("registry: write and read back", () -> log(name));
    }

    /** Writes with one request under way and all acknowledgements, reads from the start to the end that is told. */
    void log(String topic) throws Exception {
        var settings = Map.of("acks", "all", "enable.idempotence", "false", "retries", "0", "max.in.flight.requests.per.connection", "1");
        try (var producer = new KafkaProducer<>(Client.settings(bootstrap, settings), new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>(topic, 0, "key", "first")).get();
            producer.send(new ProducerRecord<>(topic, 0, "key", "second")).get();
            producer.send(new ProducerRecord<>(topic, 0, "gone", null)).get();
        }
        var reader = Client.settings(bootstrap, Map.of("auto.offset.reset", "earliest", "isolation.level", "read_committed"));
        try (var consumer = new KafkaConsumer<>(reader, new StringDeserializer(), new StringDeserializer())) {
            var place = new TopicPartition(topic, 0);
            consumer.assign(List.of(place));
            consumer.seekToBeginning(List.of(place));
            demand(consumer.endOffsets(List.of(place)).get(place) == 3, "the end is not 3");
            String last = null;
            while (consumer.position(place) < 3) {
                for (var record : consumer.poll(Duration.ofMillis(500))) {
                    last = record.key().equals("key") ? record.value() : last;
                }
            }
            demand("second".equals(last), "the newest value is " + last);
        }
    }

    /** Streams: internal topics with many settings, records deleted behind it, committed offsets. */
    void streams() {
        step("streams: make a changelog", () -> make("app-store-changelog-" + mark, 2, -1, Map.of("cleanup.policy", "compact")));
        step("streams: make a windowed changelog", () -> make("app-window-changelog-" + mark, 2, 1, Map.of(
            "cleanup.policy", "compact,delete", "retention.ms", "90000000")));
        step("streams: make a repartition topic", () -> make("app-store-repartition-" + mark, 2, 1, Map.of(
            "cleanup.policy", "delete", "segment.bytes", "52428800", "retention.ms", "-1")));
        step("streams: the settings of the windowed changelog", () -> {
            var told = Client.configs(admin, new ConfigResource(ConfigResource.Type.TOPIC, "app-window-changelog-" + mark));
            demand("compact,delete".equals(told.get("cleanup.policy")) && "90000000".equals(told.get("retention.ms")), told.toString());
        });
        step("streams: partitions of topics", () ->
            admin.describeTopics(Set.of("app-store-changelog-" + mark)).allTopicNames().get());
        step("streams: delete records behind it", () -> {
            var place = new TopicPartition("app-store-repartition-" + mark, 0);
            try (var producer = new KafkaProducer<>(Client.settings(bootstrap, Map.of()), new StringSerializer(), new StringSerializer())) {
                for (int at = 0; at < 10; at++) {
                    producer.send(new ProducerRecord<>(place.topic(), 0, "key", "value " + at));
                }
            }
            var low = admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(4))).lowWatermarks().get(place).get();
            demand(low.lowWatermark() == 4, "low watermark " + low.lowWatermark());
        });
        step("streams: a node's settings", () -> {
            var node = admin.describeCluster().nodes().get().iterator().next();
            demand(config(ConfigResource.Type.BROKER, node.idString(), "message.max.bytes") != null, "no message.max.bytes");
        });
    }

    /** Groups of the kinds that are not consumers: the leader gives each member what it likes. */
    void groups() {
        for (var kind : List.of("connect", "sr")) {
            step("a group of the kind " + kind, () -> {
                try (var first = new Coordinated(bootstrap, kind, kind + "-" + mark)) {
                    first.joined();
                    try (var second = new Coordinated(bootstrap, kind, kind + "-" + mark)) {
                        first.with(second);
                        second.joined();
                        demand(first.size() == 2, "the leader was told of " + first.size());
                        describe(kind);
                    }
                    first.alone();
                }
            });
        }
    }

    void describe(String kind) throws Exception {
        var listed = admin.listGroups(new ListGroupsOptions().withProtocolTypes(Set.of(kind))).all().get();
        demand(listed.stream().anyMatch(group -> group.groupId().equals(kind + "-" + mark)), "not listed: " + listed);
        var found = admin.describeClassicGroups(Set.of(kind + "-" + mark)).all().get().get(kind + "-" + mark);
        demand(found.protocol().equals(kind), "its kind is " + found.protocol());
        demand(found.members().size() == 2 && found.state() == ClassicGroupState.STABLE, found.toString());
    }
}
