import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.clients.ApiVersions;
import org.apache.kafka.clients.ClientUtils;
import org.apache.kafka.clients.GroupRebalanceConfig;
import org.apache.kafka.clients.Metadata;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.internals.AbstractCoordinator;
import org.apache.kafka.clients.consumer.internals.ConsumerNetworkClient;
import org.apache.kafka.common.internals.ClusterResourceListeners;
import org.apache.kafka.common.message.JoinGroupRequestData.JoinGroupRequestProtocol;
import org.apache.kafka.common.message.JoinGroupRequestData.JoinGroupRequestProtocolCollection;
import org.apache.kafka.common.message.JoinGroupResponseData.JoinGroupResponseMember;
import org.apache.kafka.common.metrics.Metrics;
import org.apache.kafka.common.utils.LogContext;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.common.utils.Timer;

/**
 * A member of a group of any kind, as Connect's workers and the nodes of a Schema Registry are: what the members say
 * of themselves and what the leader gives them is theirs alone.
 */
class Coordinated implements AutoCloseable {
    private final String kind;
    private final Member member;
    private final ConsumerNetworkClient client;
    private final Metrics metrics = new Metrics();
    private final List<String> given = new ArrayList<>();
    private final Thread thread;
    private volatile int size;
    private volatile boolean over;
    private volatile Throwable failure;

    Coordinated(String bootstrap, String kind, String group) {
        this.kind = kind;
        var text = "org.apache.kafka.common.serialization.StringDeserializer";
        var config = new ConsumerConfig(Client.settings(
            bootstrap, Map.of("key.deserializer", text, "value.deserializer", text, "group.id", group)));
        var log = new LogContext("[" + group + "] ");
        var metadata = new Metadata(100, 1000, 300_000, log, new ClusterResourceListeners());
        metadata.bootstrap(ClientUtils.parseAndValidateAddresses(config));
        var network = ClientUtils.createNetworkClient(
            config, metrics, kind, log, new ApiVersions(), Time.SYSTEM, 100, metadata, null, null);
        client = new ConsumerNetworkClient(log, network, metadata, Time.SYSTEM, 100, 30_000, 1000);
        var settings = new GroupRebalanceConfig(10_000, 60_000, 1000, group, Optional.empty(), null, 100, 1000);
        member = new Member(settings, log);
        thread = new Thread(this::live, group);
        thread.setDaemon(true);
        thread.start();
    }

    private void live() {
        try {
            while (!over) {
                member.turn();
            }
            member.close();
        } catch (Throwable error) {
            failure = error;
        }
    }

    /** How many members the leader was told of last. */
    int size() {
        return size;
    }

    void joined() throws Exception {
        until("joined", () -> !last().isEmpty());
    }

    /** Waits until this one or the other has given both their shares. */
    void with(Coordinated other) throws Exception {
        until("both have a share", () -> !other.last().isEmpty() && (size == 2 || other.size == 2));
        size = 2;
    }

    void alone() throws Exception {
        until("alone again", () -> last().startsWith("1:"));
    }

    private String last() {
        synchronized (given) {
            return given.isEmpty() ? "" : given.get(given.size() - 1);
        }
    }

    private void until(String what, java.util.function.BooleanSupplier check) throws Exception {
        long deadline = System.nanoTime() + 40_000_000_000L;
        while (!check.getAsBoolean()) {
            if (failure != null) {
                throw new IllegalStateException(what, failure);
            }
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException(what + ": not within 40 s, given " + given);
            }
            Thread.sleep(20);
        }
    }

    @Override
    public void close() throws Exception {
        over = true;
        thread.join(30_000);
        client.close();
        metrics.close();
    }

    private class Member extends AbstractCoordinator {
        Member(GroupRebalanceConfig settings, LogContext log) {
            super(settings, log, Coordinated.this.client, metrics, kind, Time.SYSTEM);
        }

        void turn() {
            ensureCoordinatorReady(time.timer(1000));
            if (!coordinatorUnknown()) {
                ensureActiveGroup();
                pollHeartbeat(time.milliseconds());
            }
            client.poll(time.timer(100));
        }

        @Override
        protected String protocolType() {
            return kind;
        }

        @Override
        protected JoinGroupRequestProtocolCollection metadata() {
            var protocols = new JoinGroupRequestProtocolCollection();
            protocols.add(new JoinGroupRequestProtocol().setName("v0").setMetadata(new byte[] {0, 1, -1}));
            return protocols;
        }

        @Override
        protected boolean onJoinPrepare(Timer timer, int generation, String id) {
            return true;
        }

        @Override
        protected Map<String, ByteBuffer> onLeaderElected(
                String leader, String protocol, List<JoinGroupResponseMember> members, boolean skip) {
            size = members.size();
            var shares = new HashMap<String, ByteBuffer>();
            for (var each : members) {
                Startup.demand(java.util.Arrays.equals(each.metadata(), new byte[] {0, 1, -1}), "another's metadata differs");
                shares.put(each.memberId(), ByteBuffer.wrap((size + ":" + each.memberId()).getBytes(StandardCharsets.UTF_8)));
            }
            return shares;
        }

        @Override
        protected void onJoinComplete(int generation, String id, String protocol, ByteBuffer share) {
            var text = StandardCharsets.UTF_8.decode(share).toString();
            Startup.demand(text.endsWith(":" + id) && protocol.equals("v0"), "given " + text + ", is " + id);
            synchronized (given) {
                given.add(text);
            }
        }
    }
}
