//! Clients that speak Kafka's protocol: idempotent producers, and consumers that share the topic in a group.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_check::{Acknowledged, Event, Happened, Micros, OpId, Sending};
use streamhouse_kafka_client::{CancellationToken, Habits, Load, Member, Place, Producer, Witness};

use super::{Client, TOPIC};
use crate::node::{plain_env, zone};
use crate::world::{Stage, World};

const GROUP: &str = "billing";

pub(super) async fn produce(client: Client, number: u64) {
    let name = format!("kafka producer {number}");
    let place = place(&client, &name);
    let load = Load {
        records_max: 2_000,
        pause_ms_max: client.world.plan.record_every_ms * 20,
        delivery_timeout: Duration::from_secs(40),
    };
    let stop = place.stop.clone();
    let producer = Producer { place, witness: Saw(client.world.clone()), name, load };
    futures::future::join(producer.run(), stop_with_the_load(&client, stop)).await;
}

pub(super) async fn consume(client: Client, number: u64) {
    let name = format!("kafka member {number}");
    let dice = client.seed.branch(&name).rng();
    let place = place(&client, &name);
    let stop = place.stop.clone();
    let habits = Habits {
        commit: dice.magnitude(2, 12),
        stall: dice.magnitude(40, 300),
        leave: dice.magnitude(100, 600),
    };
    // Some say where they are.
    let near = client.world.nodes.get(usize::try_from(number).expect("few")).map(zone);
    let rack = near.filter(|_| dice.one_in(2)).unwrap_or_default();
    let member = Member::new(place, Saw(client.world.clone()), (&name, GROUP, &rack), habits);
    futures::future::join(member.run(), stop_with_the_load(&client, stop)).await;
}

fn place(client: &Client, name: &str) -> Place {
    Place {
        env: plain_env(&client.world, name),
        servers: client.world.kafka_addresses(),
        topic: TOPIC.to_owned(),
        stop: CancellationToken::new(),
    }
}

async fn stop_with_the_load(client: &Client, stop: CancellationToken) {
    client.world.passed(Stage::Faults).await;
    stop.cancel();
}

/// Writes into the history of the run.
#[derive(Clone)]
struct Saw(Arc<World>);

impl Witness for Saw {
    fn now(&self) -> Micros {
        self.0.history.now()
    }

    fn append(&self, sending: &Sending<'_>) -> OpId {
        self.0.history.append(sending)
    }

    fn acked(&self, op: OpId, acknowledged: Acknowledged) {
        self.0.history.acked(op, acknowledged);
    }

    fn failed(&self, op: OpId, happened: Happened, error: &str) {
        self.0.history.failed(op, happened, error);
    }

    fn record(&self, event: Event<'_>) {
        match event {
            Event::Poll(poll) => self.0.history.poll(poll),
            event => self.0.history.record(&event),
        }
    }

    fn met(&self, what: &str) {
        self.0.coverage.count(what);
    }

    fn wrong(&self, what: String) {
        self.0.violate(what);
    }
}
