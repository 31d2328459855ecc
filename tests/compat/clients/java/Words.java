import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Produced;

/** A Kafka Streams program that counts words. Its second life has an empty disk: the state comes from the changelog. */
class Words {
    static final Map<String, Integer> EACH = Map.of("a", 30, "b", 20, "c", 10);

    static void run(String bootstrap, String source, String result) throws Exception {
        var application = "words-" + source;
        for (int life = 1; life <= 2; life++) {
            write(bootstrap, source);
            Path state = Files.createTempDirectory("words");
            try (var streams = new KafkaStreams(words(source, result).build(), settings(bootstrap, application, state))) {
                streams.setUncaughtExceptionHandler(error -> {
                    error.printStackTrace();
                    Client.out(Map.of("error", error.toString()));
                    return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
                });
                streams.start();
                Client.out(Map.of("counts", counts(bootstrap, result, life)));
                streams.close(Duration.ofSeconds(30));
            }
            try (var files = Files.walk(state)) {
                files.sorted(java.util.Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
            }
        }
    }

    static java.util.Properties settings(String bootstrap, String application, Path state) {
        return Client.settings(bootstrap, Map.of(
            "application.id", application, "state.dir", state.toString(), "commit.interval.ms", "500",
            "num.stream.threads", "2", "replication.factor", "1", "auto.offset.reset", "earliest",
            "default.key.serde", Serdes.StringSerde.class.getName(), "default.value.serde", Serdes.StringSerde.class.getName(),
            "session.timeout.ms", "10000"));
    }

    static StreamsBuilder words(String source, String result) {
        var builder = new StreamsBuilder();
        builder.<String, String>stream(source).groupBy((key, word) -> word).count().toStream()
            .to(result, Produced.with(Serdes.String(), Serdes.Long()));
        return builder;
    }

    static void write(String bootstrap, String source) {
        try (var producer = new KafkaProducer<>(Client.settings(bootstrap, Map.of()), new StringSerializer(), new StringSerializer())) {
            EACH.forEach((word, times) -> {
                for (int at = 0; at < times; at++) {
                    producer.send(new ProducerRecord<>(source, at % 2, null, word));
                }
            });
        }
    }

    /** The newest count of each word, once all are as high as they must be, or after a minute as they are. */
    static Map<String, Long> counts(String bootstrap, String result, int life) {
        var found = new TreeMap<String, Long>();
        long deadline = System.nanoTime() + Duration.ofSeconds(80).toNanos();
        var settings = Client.settings(bootstrap, Map.of("auto.offset.reset", "earliest"));
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new LongDeserializer())) {
            consumer.assign(List.of(new TopicPartition(result, 0), new TopicPartition(result, 1)));
            consumer.seekToBeginning(consumer.assignment());
            var wanted = new HashMap<String, Long>();
            EACH.forEach((word, times) -> wanted.put(word, (long) times * life));
            while (!found.equals(wanted) && System.nanoTime() < deadline) {
                consumer.poll(Duration.ofMillis(200)).forEach(record -> found.put(record.key(), record.value()));
            }
        }
        return found;
    }
}
