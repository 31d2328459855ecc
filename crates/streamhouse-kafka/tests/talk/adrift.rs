//! A node that has lost the others sends its clients to them.

use kacrab_protocol::generated as g;
use streamhouse_broker::Contact;
use streamhouse_types::batch::Compression;

use crate::groups::{alone, beat, joining, syncing};
use crate::harness::{Client, House, batch, produce, records, text};

const NOT_LEADER: i16 = 6;
const TIMED_OUT: i16 = 7;
const NOT_COORDINATOR: i16 = 16;

async fn heartbeat(client: &mut Client) -> i16 {
    let request = g::HeartbeatRequestData {
        group_id: text("g"),
        member_id: text("m"),
        generation_id: 1,
        ..Default::default()
    };
    client.call(&request, 4).await.error_code
}

#[tokio::test]
async fn a_node_that_has_lost_the_others_gives_what_it_has_and_takes_nothing() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    assert_eq!(client.produce("t", batch(Compression::None, 1, &["a"])).await.0, 0);
    house.broker.set_contact(Contact::Lost);
    assert_eq!(client.produce("t", batch(Compression::None, 1, &["b"])).await.0, NOT_LEADER);
    assert_eq!(records(&client.fetch("t", 0, 0).await), [(0, "a".to_owned())]);
    // Others may have more.
    assert_eq!(client.fetch("t", 1, 0).await.error_code, NOT_LEADER);
    assert_eq!(heartbeat(&mut client).await, NOT_COORDINATOR);
    house.broker.set_contact(Contact::Kept);
    assert_eq!(client.produce("t", batch(Compression::None, 1, &["b"])).await.1, 1);
    assert_eq!(records(&client.fetch("t", 1, 0).await), [(1, "b".to_owned())]);
    assert_ne!(heartbeat(&mut client).await, NOT_COORDINATOR);
}

#[tokio::test]
async fn who_waits_for_an_answer_is_told_that_none_comes_when_the_node_loses_the_others() {
    let house = House::start().await;
    house.topic("t", 1, &[]).await;
    let mut client = house.connect();
    let held = house.log.committing.lock().await;
    let request = produce("t", batch(Compression::None, 1, &["a"]));
    client.send(&g::ProduceRequestData { timeout_ms: i32::MAX, ..request }, 9).await;
    // It is in the log, and nobody says so.
    let mut other = house.connect();
    while records(&other.fetch("t", 0, 0).await).is_empty() {}
    house.broker.set_contact(Contact::Lost);
    let (_, answer) = client.receive::<g::ProduceRequestData>(9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, TIMED_OUT, "it may have been stored");
    drop(held);
}

#[tokio::test]
async fn who_waits_for_other_members_is_sent_away_when_the_node_loses_the_others() {
    let house = House::start().await;
    let (mut first, mut second) = (house.connect(), house.connect());
    let leader = alone(&mut first, "g", 3).await;
    second.send(&joining("g", "", 3), 3).await;
    while beat(&mut first, "g", &leader, 3).await != 27 {
        tokio::task::yield_now().await;
    }
    house.broker.set_contact(Contact::Lost);
    let (_, refused) = second.receive::<g::JoinGroupRequestData>(3).await;
    assert_eq!(refused.error_code, NOT_COORDINATOR);

    house.broker.set_contact(Contact::Kept);
    let again = joining("g", leader.member_id.as_str(), 3);
    second.send(&joining("g", "", 3), 3).await;
    while beat(&mut first, "g", &leader, 3).await != 27 {
        tokio::task::yield_now().await;
    }
    let again = first.call(&again, 3).await;
    let (_, joined) = second.receive::<g::JoinGroupRequestData>(3).await;
    assert_eq!((again.error_code, joined.error_code, again.members.len()), (0, 0, 2));
    // A follower's sync waits for the leader's; it is known before what comes after it is answered.
    second.send(&syncing("g", &joined, &[]), 3).await;
    assert_eq!(beat(&mut first, "g", &again, 3).await, 0);
    assert_eq!(beat(&mut first, "g", &again, 3).await, 0);
    house.broker.set_contact(Contact::Lost);
    let (_, refused) = second.receive::<g::SyncGroupRequestData>(3).await;
    assert_eq!(refused.error_code, NOT_COORDINATOR);
}
