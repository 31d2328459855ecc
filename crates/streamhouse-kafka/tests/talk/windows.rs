//! What is learned of the way a client produces, and what comes of it.

use std::time::Duration;

use kacrab_protocol::generated as g;
use streamhouse_broker::BrokerSettings;
use streamhouse_env::Env;
use streamhouse_types::batch::Compression;

use crate::harness::{Client, House, batch, produce};

const INTERVAL: Duration = Duration::from_millis(400);

/// Sends so many requests, takes the answers, and tells how long that took.
async fn round(client: &mut Client, requests: usize) -> Duration {
    let clock = Env::system().clock;
    let begun = clock.now();
    for _ in 0..requests {
        client.send(&produce("orders", batch(Compression::None, 1_000, &["small"])), 9).await;
    }
    for _ in 0..requests {
        let (_, answer) = client.receive::<g::ProduceRequestData>(9).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
    clock.now() - begun
}

async fn house() -> House {
    let house = House::with(BrokerSettings { flush_interval: INTERVAL, ..BrokerSettings::default() }).await;
    house.topic("orders", 1, &[]).await;
    house
}

#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_few_requests_in_flight_is_answered_before_the_interval_is_over() {
    let house = house().await;
    let mut client = house.connect();
    round(&mut client, 1).await;
    assert_eq!(round(&mut client, 3).await, INTERVAL, "nothing is known of it");
    for _ in 0..5 {
        round(&mut client, 3).await;
    }
    let known = round(&mut client, 3).await;
    assert!(known <= INTERVAL / 4, "{known:?}");
    assert_eq!(round(&mut client, 2).await, INTERVAL, "one more might come");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_most_of_the_time_is_told_what_holds_it_back() {
    let house = house().await;
    let mut client = house.connect();
    for _ in 0..200 {
        round(&mut client, 3).await;
    }
    let held_back = house.clients.held_back();
    let [test] = &held_back[..] else { panic!("{held_back:?}") };
    assert_eq!((&*test.client, test.connections, test.requests), ("test", 1, 3));
    assert!(test.advice.contains("linger.ms=100"), "{}", test.advice);
    let clock = Env::system().clock;
    for _ in 0..20 {
        clock.sleep(INTERVAL * 2).await;
        round(&mut client, 1).await;
    }
    assert_eq!(house.clients.held_back(), [], "it takes its time");
}
