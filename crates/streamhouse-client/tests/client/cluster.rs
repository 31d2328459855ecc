//! Clients of several nodes: homes that move, nodes that die, stand still, lag and drain.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use streamhouse_client::{
    Delivery, ErrorCode, FetchOptions, Mode, NewTopic, NodeId, NodeState, Offset, PartitionIndex, Position,
    Producer, ProducerBuilder, ReadToken, Record, StreamHouse, Ticket,
};
use streamhouse_env::Env;
use streamhouse_proto::v1;

use crate::fake::{Act, Cluster, Fake, ToClient};

/// A producer with small batches, so that a few records make many.
async fn producer_of(house: &StreamHouse, set: impl FnOnce(ProducerBuilder) -> ProducerBuilder) -> Producer {
    let builder = house.topic("t").producer().batch_bytes(200).linger(Duration::ZERO);
    set(builder).build().await.expect("the topic exists")
}

/// Sends records `first..end` in turn to partitions `0..partitions`.
async fn send(producer: &Producer, numbers: std::ops::Range<u32>, partitions: u32) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for number in numbers {
        let partition = PartitionIndex::new(number % partitions);
        let record = Record::new(format!("{number:060}")).partition(partition);
        tickets.push(producer.send(record).await.expect("there is room"));
    }
    tickets
}

/// Each partition has exactly the records `0..count` that were sent to it, in order; no batch overtook another.
#[track_caller]
fn stored_once_in_order(cluster: &Cluster, count: u32) {
    let partitions = cluster.log().lock().partitions.len();
    for partition in 0..partitions {
        let numbers: Vec<u32> =
            cluster.node(1).values(partition).iter().map(|value| value.parse().expect("a number")).collect();
        let expected = (0..count).filter(|number| *number as usize % partitions == partition);
        assert_eq!(numbers, expected.collect::<Vec<_>>(), "partition {partition}");
    }
    assert_eq!(cluster.log().lock().overtakes, 0);
}

async fn all_acked(tickets: Vec<Ticket>) {
    for ack in join_all(tickets).await {
        ack.expect("acknowledged");
    }
}

fn seen_of(node: &Fake, partition: u32) -> usize {
    node.state.lock().seen_of.get(&partition).copied().unwrap_or(0)
}

#[tokio::test]
async fn batches_go_to_the_homes_of_their_partitions() {
    let cluster = Cluster::start(3, 6).await;
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    let tickets = send(&producer, 0..120, 6).await;
    producer.flush().await.expect("all stored");
    all_acked(tickets).await;
    stored_once_in_order(&cluster, 120);
    for node in 1..=3 {
        let seen: BTreeSet<u32> = cluster.node(node).state.lock().seen_of.keys().copied().collect();
        let first = u32::try_from(node - 1).expect("small");
        assert_eq!(seen, BTreeSet::from([first, first + 3]), "node {node}");
    }
    assert_eq!(cluster.log().lock().next_producer, 2, "all sessions have one producer id");
}

#[tokio::test]
async fn a_partition_that_moves_waits_for_its_answers_first() {
    for delivery in [Delivery::ExactlyOnce, Delivery::AtMostOnce] {
        let cluster = Cluster::start(2, 1).await;
        let producer = producer_of(&cluster.connect().await, |builder| builder.delivery(delivery)).await;
        cluster.node(1).otherwise(Act::Gate);
        let mut tickets = send(&producer, 0..10, 1).await;
        cluster.node(1).saw(1).await;
        cluster.move_home(0, 2);
        cluster.node(2).opened(1).await;
        tickets.extend(send(&producer, 10..20, 1).await);
        cluster.node(1).open_gate();
        all_acked(tickets).await;
        let mut next = 20;
        while seen_of(cluster.node(2), 0) == 0 {
            all_acked(send(&producer, next..next + 1, 1).await).await;
            next += 1;
        }
        let before = seen_of(cluster.node(1), 0);
        all_acked(send(&producer, next..next + 10, 1).await).await;
        stored_once_in_order(&cluster, next + 10);
        assert_eq!(seen_of(cluster.node(1), 0), before, "it stays there");
    }
}

#[tokio::test]
async fn an_old_word_about_a_home_is_not_followed() {
    let cluster = Cluster::start(2, 1).await;
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    let old = cluster.log().lock().homes[0];
    cluster.move_home(0, 2);
    let mut next = 0;
    while seen_of(cluster.node(2), 0) == 0 {
        all_acked(send(&producer, next..next + 1, 1).await).await;
        next += 1;
    }
    let before = seen_of(cluster.node(1), 0);
    let nodes = cluster.log().lock().routing().1;
    cluster.node(2).say(&ToClient::Redirect(v1::Redirect { homes: vec![old], nodes }));
    // What a session says comes before the answers to what is sent later.
    all_acked(send(&producer, next..next + 1, 1).await).await;
    all_acked(send(&producer, next + 1..next + 20, 1).await).await;
    assert_eq!(seen_of(cluster.node(1), 0), before);
    stored_once_in_order(&cluster, next + 20);
}

#[tokio::test]
async fn a_killed_node_costs_neither_records_nor_order_nor_a_second() {
    let mut cluster = Cluster::start(3, 3).await;
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    let mut tickets = send(&producer, 0..60, 3).await;
    producer.flush().await.expect("all stored");
    // Some is stored and not answered, some is not stored, some is not sent.
    let victim = cluster.node(2).clone();
    let seen = victim.state.lock().batches_seen;
    victim.script([Act::Store, Act::Ignore]);
    victim.otherwise(Act::Ignore);
    tickets.extend(send(&producer, 60..120, 3).await);
    victim.saw(seen + 3).await;
    cluster.stop(2);
    let clock = Env::system().clock;
    let killed_at = clock.now();
    tickets.extend(send(&producer, 120..150, 3).await);
    producer.flush().await.expect("the others take it");
    let took = clock.now() - killed_at;
    assert!(took < Duration::from_secs(1), "{took:?}");
    all_acked(tickets).await;
    stored_once_in_order(&cluster, 150);
}

#[tokio::test]
async fn a_batch_that_the_killed_node_stored_is_not_stored_again() {
    let mut cluster = Cluster::start(2, 1).await;
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    all_acked(send(&producer, 0..1, 1).await).await;
    cluster.node(1).otherwise(Act::StoreInSilence);
    let tickets = send(&producer, 1..2, 1).await;
    cluster.node(1).saw(2).await;
    cluster.stop(1);
    let acks = join_all(tickets).await;
    assert!(acks[0].as_ref().expect("acknowledged").duplicate);
    stored_once_in_order(&cluster, 2);
}

#[tokio::test]
async fn without_sequences_a_killed_node_leaves_its_batches_in_doubt() {
    let mut cluster = Cluster::start(2, 1).await;
    let producer =
        producer_of(&cluster.connect().await, |builder| builder.delivery(Delivery::AtMostOnce)).await;
    cluster.node(1).otherwise(Act::Ignore);
    let tickets = send(&producer, 0..1, 1).await;
    cluster.node(1).saw(1).await;
    cluster.stop(1);
    for outcome in join_all(tickets).await {
        assert!(outcome.expect_err("nobody knows").may_have_happened());
    }
    all_acked(send(&producer, 1..2, 1).await).await;
    assert_eq!(cluster.node(2).values(0).len(), 1);
}

#[tokio::test]
async fn a_home_that_cannot_be_reached_stops_nobody_and_is_found_again() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.stop(3);
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    all_acked(send(&producer, 0..30, 3).await).await;
    assert_eq!(cluster.node(3).state.lock().batches_seen, 0);
    cluster.restart(3).await;
    let mut next = 30;
    while seen_of(cluster.node(3), 2) == 0 {
        all_acked(send(&producer, next..next + 3, 3).await).await;
        next += 3;
    }
    stored_once_in_order(&cluster, next);
}

#[tokio::test]
async fn when_all_are_down_the_first_that_is_back_takes_everything() {
    let mut cluster = Cluster::start(3, 3).await;
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    let mut tickets = send(&producer, 0..30, 3).await;
    producer.flush().await.expect("all stored");
    (1..=3).for_each(|node| cluster.stop(node));
    tickets.extend(send(&producer, 30..60, 3).await);
    cluster.restart(2).await;
    producer.flush().await.expect("one is enough");
    all_acked(tickets).await;
    stored_once_in_order(&cluster, 60);
}

#[tokio::test]
async fn a_node_that_goes_away_tells_where_to_go() {
    let cluster = Cluster::start(2, 1).await;
    // The client knows one node only; the second is told of when the first goes.
    let addresses = std::mem::take(&mut cluster.log().lock().addresses);
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    all_acked(send(&producer, 0..5, 1).await).await;
    cluster.log().lock().addresses = addresses;
    cluster.move_quietly(0, 2);
    let nodes = cluster.log().lock().routing().1;
    cluster.node(1).state.lock().open_refusals.extend(vec![ErrorCode::Draining; 100]);
    cluster.node(1).say(&ToClient::GoAway(v1::GoAway { reason: "drain".to_owned(), nodes }));
    let mut next = 5;
    while seen_of(cluster.node(2), 0) == 0 {
        all_acked(send(&producer, next..next + 1, 1).await).await;
        next += 1;
    }
    stored_once_in_order(&cluster, next);
}

#[tokio::test]
async fn a_node_that_refuses_for_now_is_left_for_another() {
    let cluster = Cluster::start(2, 1).await;
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    cluster.node(1).otherwise(Act::Nack(ErrorCode::MetadataUnavailable));
    let tickets = send(&producer, 0..20, 1).await;
    producer.flush().await.expect("the other takes it");
    all_acked(tickets).await;
    stored_once_in_order(&cluster, 20);
    assert!(seen_of(cluster.node(2), 0) > 0);
}

#[tokio::test]
async fn a_node_that_stands_still_is_noticed_and_left() {
    let cluster = Cluster::start(2, 2).await;
    let house = cluster.connect().await;
    let producer = producer_of(&house, |builder| builder).await;
    let mut tickets = send(&producer, 0..10, 2).await;
    producer.flush().await.expect("all stored");
    let frozen = cluster.running(1).freeze().await;
    let clock = Env::system().clock;
    let frozen_at = clock.now();
    tickets.extend(send(&producer, 10..20, 2).await);
    producer.flush().await.expect("the other takes it");
    let took = clock.now() - frozen_at;
    assert!(took < Duration::from_secs(4), "{took:?}");
    house.topic("t").describe().await.expect("calls go elsewhere, too");
    drop(frozen);
    all_acked(tickets).await;
    stored_once_in_order(&cluster, 20);
}

#[tokio::test]
async fn a_slow_store_is_waited_for() {
    let cluster = Cluster::start(2, 1).await;
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    cluster.node(1).otherwise(Act::Gate);
    cluster.node(2).otherwise(Act::Gate);
    let tickets = send(&producer, 0..10, 1).await;
    // The other is asked twice about the silent node, which is still the home.
    cluster.node(2).asked(2).await;
    cluster.node(1).open_gate();
    producer.flush().await.expect("slow, but stored");
    all_acked(tickets).await;
    stored_once_in_order(&cluster, 10);
    assert_eq!(seen_of(cluster.node(2), 0), 0, "nothing was sent elsewhere");
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_the_others_is_left_when_its_partitions_move() {
    let cluster = Cluster::start(3, 3).await;
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    let mut tickets = send(&producer, 0..9, 3).await;
    producer.flush().await.expect("all stored");
    cluster.node(2).otherwise(Act::Ignore);
    cluster.move_quietly(1, 3);
    tickets.extend(send(&producer, 9..30, 3).await);
    producer.flush().await.expect("the new home takes it");
    all_acked(tickets).await;
    let log: Vec<_> = (0..3).map(|partition| cluster.node(1).values(partition).len()).collect();
    assert_eq!(log, [10, 10, 10]);
}

#[tokio::test]
async fn sessions_that_nobody_needs_do_not_hold_a_new_epoch_up() {
    let cluster = Cluster::start(3, 3).await;
    let producer = producer_of(&cluster.connect().await, |builder| builder).await;
    let mut tickets = send(&producer, 0..30, 3).await;
    producer.flush().await.expect("all stored");
    cluster.node(1).forget_producers();
    tickets.extend(send(&producer, 30..90, 3).await);
    producer.flush().await.expect("all stored in a new epoch");
    all_acked(tickets).await;
    stored_once_in_order(&cluster, 90);
    let identities = cluster.log().lock().identities.clone();
    assert_eq!(identities, [(1, 0), (1, 1)].into(), "one new epoch for all sessions");
}

#[tokio::test]
async fn any_of_several_addresses_leads_in() {
    let mut cluster = Cluster::start(3, 1).await;
    let all = cluster.addresses(1..=3);
    cluster.stop(1);
    let house = StreamHouse::connect(&all).await.expect("two are there");
    assert_eq!(house.address(), all);
    cluster.stop(2);
    house.topic("t").describe().await.expect("the third answers");
    cluster.stop(3);
    let error = StreamHouse::connect(&all).await.expect_err("nobody is there");
    assert_eq!(error.code(), Some(ErrorCode::Unreachable));
}

#[tokio::test]
async fn a_client_that_was_told_of_one_node_outlives_it() {
    let mut cluster = Cluster::start(3, 1).await;
    let house = cluster.connect().await;
    cluster.stop(1);
    cluster.node(2).write(0, &["a"]);
    let topic = house.topic("t");
    // More often than there are nodes, so that the dead one's turn comes too.
    for _ in 0..6 {
        let records = topic.read(Position::Start).open().await.expect("others answer").records();
        assert_eq!(records.try_collect::<Vec<_>>().await.expect("all there").len(), 1);
        topic.list_offsets(&[(PartitionIndex::new(0), Position::End)]).await.expect("others answer");
    }
}

#[tokio::test]
async fn a_change_that_falls_over_to_another_node_keeps_its_request_id() {
    let mut cluster = Cluster::start(3, 1).await;
    let house = cluster.connect().await;
    for node in 1..=3 {
        cluster.node(node).script([Act::Nack(ErrorCode::MetadataUnavailable)]);
    }
    house.admin().create_topic(NewTopic::new("x"), Mode::Apply).await.expect("the fourth try works");
    let requests = std::mem::take(&mut cluster.log().lock().requests);
    assert_eq!(requests.len(), 4, "{requests:?}");
    let nodes: BTreeSet<_> = requests.iter().map(|(node, _)| *node).collect();
    assert_eq!(nodes.len(), 3, "each was tried: {requests:?}");
    let ids: BTreeSet<_> = requests.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 1, "under one id");
    cluster.stop(1);
    cluster.stop(2);
    house.admin().create_topic(NewTopic::new("y"), Mode::Apply).await.expect("the third answers");
    assert_eq!(cluster.log().lock().requests.last().expect("a request").0, 3);
}

#[tokio::test]
async fn a_change_that_a_node_does_not_answer_goes_to_another() {
    let cluster = Cluster::start(3, 1).await;
    let builder = StreamHouse::builder().request_timeout(Duration::from_secs(20));
    let house = builder.connect(&cluster.addresses([1])).await.expect("the node listens");
    for node in [1, 2] {
        cluster.node(node).script([Act::Ignore]);
    }
    for name in ["x", "y", "z"] {
        house.admin().create_topic(NewTopic::new(name), Mode::Apply).await.expect("the third answers");
    }
    let requests = std::mem::take(&mut cluster.log().lock().requests);
    let ids: BTreeSet<_> = requests.iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 3, "each under one id: {requests:?}");
}

#[tokio::test]
async fn a_read_presents_the_newest_token_that_its_client_has_seen() {
    let cluster = Cluster::start(1, 1).await;
    let node = cluster.node(1);
    let (p0, house) = (PartitionIndex::new(0), cluster.connect().await);
    let topic = house.topic("t");
    let presented = || node.state.lock().tokens.last().copied().expect("a read");
    topic.list_offsets(&[(p0, Position::End)]).await.expect("it exists");
    assert_eq!(presented(), 0);
    let producer = producer_of(&house, |builder| builder).await;
    let ack = producer.send("a").await.expect("room").await.expect("stored");
    assert_eq!(ack.read_token().get(), 1);
    assert_eq!(house.read_token(), ack.read_token());
    topic.list_offsets(&[(p0, Position::End)]).await.expect("it exists");
    assert_eq!(presented(), 1);
    let places = topic.append(vec![Record::new("b")]).await.expect("stored");
    assert_eq!(places[0].read_token().get(), 2);
    topic.fetch(p0, Offset::ZERO, FetchOptions::default()).await.expect("it is there");
    assert_eq!(presented(), 2);
    node.write(0, &["c"]);
    let mut reader = topic.read(Position::Start).open().await.expect("it is there");
    let batch = reader.next_batch().await.expect("a batch").expect("sound");
    assert_eq!((presented(), batch.read_token().get(), reader.read_token().get()), (2, 3, 3));
    let fetched = topic.fetch(p0, Offset::ZERO, FetchOptions::default()).await.expect("it is there");
    assert_eq!((presented(), fetched.read_token().get()), (3, 3), "what was read is not forgotten");
}

#[tokio::test]
async fn a_client_that_does_not_care_presents_only_what_it_is_told_to() {
    let cluster = Cluster::start(1, 1).await;
    let builder = StreamHouse::builder().read_your_writes(false);
    let house = builder.connect(&cluster.addresses([1])).await.expect("the node listens");
    let topic = house.topic("t");
    let token = topic.append(vec![Record::new("a"), Record::new("b")]).await.expect("stored")[0].read_token();
    assert_eq!(token.get(), 2);
    topic.fetch(PartitionIndex::new(0), Offset::ZERO, FetchOptions::default()).await.expect("there");
    let earlier = ReadToken::new(1);
    assert!(earlier < token);
    let reader = topic.clone().at_least(token).read(Position::Start).at_least(earlier).open().await;
    assert_eq!(reader.expect("there").records().count().await, 2);
    assert_eq!(cluster.node(1).state.lock().tokens, [0, 2, 2]);
}

#[tokio::test]
async fn a_node_that_lags_behind_a_token_is_left_for_another() {
    let cluster = Cluster::start(3, 1).await;
    cluster.node(1).write(0, &["a", "b"]);
    let house = cluster.connect().await;
    for node in 1..=2 {
        cluster.node(node).state.lock().stuck_at = Some(0);
    }
    let topic = house.topic("t").at_least(ReadToken::new(1));
    for _ in 0..3 {
        let reader = topic.read(Position::Start).open().await.expect("the third is new enough");
        assert_eq!(reader.records().count().await, 2);
        topic.fetch(PartitionIndex::new(0), Offset::ZERO, FetchOptions::default()).await.expect("there");
    }
}

#[tokio::test]
async fn a_reader_goes_on_at_another_node_and_never_goes_back() {
    let mut cluster = Cluster::start(3, 1).await;
    let house = StreamHouse::builder()
        .read_your_writes(false)
        .connect(&cluster.addresses(1..=3))
        .await
        .expect("there");
    let mut reader = house.topic("t").read(Position::Start).follow(true).open().await.expect("there");
    let mut next = 0;
    let mut left = BTreeSet::new();
    for round in 0..3_u64 {
        cluster.node(1).write(0, &["a", "b"]);
        cluster.node(1).write(0, &["c"]);
        for _ in 0..2 {
            let offsets = reader.next_batch().await.expect("it goes on").expect("sound").offsets();
            assert_eq!(offsets.start.get(), next, "neither gap nor repeat");
            next = offsets.end.get();
        }
        assert_eq!(reader.read_token().get(), 2 * (round + 1));
        let serving = (1..=3).filter(|node| !left.contains(node)).find(|node| {
            let state = cluster.node(*node).state.lock();
            state.reads > 0
        });
        if round < 2 {
            let serving = serving.expect("one of them serves");
            left.insert(serving);
            cluster.stop(serving);
        }
    }
    let last = (1..=3).find(|node| !left.contains(node)).expect("one is left");
    assert_eq!(cluster.node(last).state.lock().tokens.last(), Some(&4), "the newest that it had seen");
}

#[tokio::test]
async fn readers_spread_over_the_nodes() {
    let cluster = Cluster::start(3, 1).await;
    cluster.node(1).write(0, &["a"]);
    let topic = cluster.connect().await.topic("t");
    for _ in 0..6 {
        let reader = topic.read(Position::Start).open().await.expect("there");
        assert_eq!(reader.records().count().await, 1);
    }
    let reads: Vec<_> = (1..=3).map(|node| cluster.node(node).state.lock().reads).collect();
    assert_eq!(reads, [2, 2, 2]);
}

#[tokio::test]
async fn reads_stay_with_a_reader_that_was_given_and_outlive_it() {
    let mut cluster = Cluster::start(3, 1).await;
    cluster.make_reader(3);
    let house = StreamHouse::connect(&cluster.addresses([3])).await.expect("it listens");
    let producer = producer_of(&house, |builder| builder).await;
    let tickets = send(&producer, 0..10, 1).await;
    all_acked(tickets).await;
    let read = || async {
        let reader = house.topic("t").read(Position::Start).open().await.expect("opened");
        reader.records().try_collect::<Vec<_>>().await.expect("read").len()
    };
    assert_eq!((read().await, read().await), (10, 10));
    let reads = |id| cluster.node(id).state.lock().reads;
    assert_eq!([reads(1), reads(2), reads(3)], [0, 0, 2]);
    assert_eq!(seen_of(cluster.node(3), 0), 0, "a reader is given nothing to write");
    cluster.stop(3);
    assert_eq!(read().await, 10);
    assert_eq!(cluster.node(3).state.lock().reads, 2);
}

#[tokio::test]
async fn a_reader_of_a_node_that_stands_still_goes_elsewhere() {
    let cluster = Cluster::start(2, 1).await;
    let house = cluster.connect().await;
    let mut reader = house.topic("t").read(Position::Start).follow(true).open().await.expect("there");
    cluster.node(1).write(0, &["a"]);
    reader.next_batch().await.expect("goes on").expect("sound");
    let serving = (1..=2).find(|node| cluster.node(*node).state.lock().reads > 0).expect("one serves");
    let _frozen = cluster.running(serving).freeze().await;
    cluster.node(1).write(0, &["b"]);
    let batch = reader.next_batch().await.expect("goes on").expect("sound");
    assert_eq!(batch.offsets().start, Offset::new(1));
}

#[tokio::test]
async fn the_cluster_tells_of_itself() {
    let cluster = Cluster::start(1, 1).await;
    let admin = cluster.connect().await.admin();
    let nodes = admin.nodes().await.expect("a list");
    assert_eq!(nodes.iter().map(|node| node.id.get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((nodes[0].state, nodes[0].homes), (NodeState::Draining, 7));
    assert_eq!(nodes[0].last_heard, Some(Duration::from_millis(1_500)));
    let described = admin.node(NodeId::new(2)).await.expect("it exists");
    assert_eq!((described.node.id, described.homes[0].partition), (NodeId::new(2), PartitionIndex::new(3)));
    let health = admin.health().await.expect("an answer");
    assert_eq!((health.healthy, health.checks[0].fix.as_str()), (false, "start node 3"));
    assert_eq!(health.leader, Some(NodeId::new(2)));
    let raft = admin.raft_status().await.expect("an answer");
    assert_eq!((raft.leader, raft.term, raft.members[0].matched_index), (None, 4, Some(9)));
}

#[tokio::test]
async fn the_cluster_is_changed_under_request_ids_or_only_checked() {
    let cluster = Cluster::start(1, 1).await;
    let admin = cluster.connect().await.admin();
    let two = NodeId::new(2);
    cluster.node(1).script([Act::Nack(ErrorCode::CommitUnknown)]);
    let drained = admin.drain_node(two, Mode::Apply).await.expect("the second try works").node;
    assert_eq!(drained.state, NodeState::Draining);
    let checked = admin.drain_node(two, Mode::ValidateOnly).await.expect("it may").node;
    assert_eq!(checked.state, NodeState::Serving);
    assert_eq!(admin.undrain_node(two, Mode::Apply).await.expect("it works").id, two);
    assert_eq!(admin.remove_node(two, Mode::ValidateOnly).await.expect("it may").homes_to_move, 4);
    let removal = admin.remove_node(two, Mode::Apply).await.expect("it works");
    assert_eq!((removal.homes_to_move, removal.voters.len()), (5, 2));
    admin.set_voters(3).await.expect("an odd number");
    let error = admin.set_voters(2).await.expect_err("an even number");
    assert_eq!(error.code(), Some(ErrorCode::InvalidArgument));
    let ids: Vec<_> = cluster.log().lock().requests.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(ids[0], ids[1], "a repeated call");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len() - 1, "each call has its own: {ids:?}");
    assert_eq!(admin.transfer_leader(Some(two)).await.expect("it leads"), two);
    assert_eq!(admin.transfer_leader(None).await.expect("one leads"), NodeId::new(3));
    let plan = admin.rebalance(Mode::ValidateOnly).await.expect("a plan");
    assert_eq!((plan.moves[0].from, plan.moves[0].to), (None, two));
    let done = admin.rebalance(Mode::Apply).await.expect("done");
    assert_eq!((done.moves.len(), done.nodes[0].homes_after), (0, 1));
}
