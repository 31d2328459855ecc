//! The clients: two hosts with producers and consumers, through the real client library and in Kafka's protocol.

mod audit;
mod consume;
mod fetch;
mod kafka;
mod operate;
mod produce;
mod replace;

use std::sync::Arc;
use std::time::Duration;

use streamhouse_client::{Builder, Mode, NewTopic, StreamHouse};
use streamhouse_env::Env;
use streamhouse_types::error_code::ErrorCode;
use tokio::task::JoinSet;

use crate::machine::OnlyTo;
use crate::node::plain_env;
use crate::seed::{Dice, Seed};
use crate::world::{Stage, World};

pub(crate) const HOSTS: [&str; 2] = ["client-1", "client-2"];
const TOPIC: &str = "orders";

/// How the history calls a partition.
fn partition_name(partition: u32) -> String {
    format!("{TOPIC}/{partition}")
}

/// A client host.
#[derive(Clone)]
struct Client {
    world: Arc<World>,
    env: Env,
    seed: Seed,
}

/// Runs until everything is read once more, or the run ends.
pub(crate) async fn run(world: Arc<World>, place: usize) -> turmoil::Result {
    let host = HOSTS[place];
    let client = Client { env: plain_env(&world, host), seed: world.seed.branch(host), world };
    if place == 0 {
        client.make_topic().await;
        client.world.stage.send_replace(Stage::Faults);
    }
    client.world.passed(Stage::Start).await;
    let mut tasks = JoinSet::new();
    if place == 1 {
        tasks.spawn(operate::run(client.clone()));
    }
    let mine = |number: &u64| usize::try_from(*number).is_ok_and(|number| number % HOSTS.len() == place);
    for number in (0..client.world.plan.producers).filter(mine) {
        tasks.spawn(produce::run(client.clone(), number));
    }
    for number in (0..client.world.plan.consumers).filter(mine) {
        if number == 1 {
            tasks.spawn(fetch::run(client.clone(), number));
        } else {
            tasks.spawn(consume::run(client.clone(), number));
        }
    }
    for number in (0..client.world.plan.kafka_producers).filter(mine) {
        tasks.spawn(kafka::produce(client.clone(), number));
    }
    for number in (0..client.world.plan.kafka_members).filter(mine) {
        tasks.spawn(kafka::consume(client.clone(), number));
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    client.world.finished();
    if place == 0 {
        client.world.passed(Stage::Settle).await;
        audit::run(&client).await;
    }
    Ok(())
}

impl Client {
    async fn pause(&self, millis: u64) {
        self.env.clock.sleep(Duration::from_millis(millis)).await;
    }

    /// A connection to a node, drawn anew for each attempt until one answers.
    async fn connect(&self, dice: &Dice) -> StreamHouse {
        loop {
            let addresses = self.world.addresses();
            if let Some(house) = self.connect_to(dice, dice.pick(&addresses).as_str()).await {
                return house;
            }
        }
    }

    /// A connection to one node; `None`, after a while, when it does not answer.
    async fn connect_to(&self, dice: &Dice, address: &str) -> Option<StreamHouse> {
        self.connect_with(self.builder(dice), dice, address).await
    }

    /// A connection that asks one node and no other, and takes what it says also when it is behind.
    async fn connect_only_to(&self, dice: &Dice, address: &str) -> Option<StreamHouse> {
        let mut env = self.env.clone();
        env.net = Arc::new(OnlyTo { net: env.net, address: address.to_owned() });
        self.connect_with(self.builder(dice).env(env).read_your_writes(false), dice, address).await
    }

    fn builder(&self, dice: &Dice) -> Builder {
        StreamHouse::builder()
            .env(self.env.clone())
            .connections(usize::try_from(dice.between(1, 2)).expect("small"))
            .connect_timeout(Duration::from_secs(2))
            .request_timeout(Duration::from_secs(10))
    }

    async fn connect_with(&self, builder: Builder, dice: &Dice, address: &str) -> Option<StreamHouse> {
        match builder.connect(address).await {
            Ok(house) => Some(house),
            Err(error) => {
                tracing::debug!(%error, "client has no connection");
                self.pause(dice.between(50, 500)).await;
                None
            }
        }
    }

    async fn make_topic(&self) {
        let dice = self.seed.branch("topic").rng();
        loop {
            let house = self.connect(&dice).await;
            let topic = NewTopic::new(TOPIC).partitions(self.world.plan.partitions);
            match house.admin().create_topic(topic, Mode::Apply).await {
                Ok(_) => return,
                Err(error)
                    if streamhouse_client::ClientError::code(&error) == Some(ErrorCode::TopicExists) =>
                {
                    return;
                }
                Err(error) => tracing::info!(%error, "the topic is not made yet"),
            }
            self.pause(200).await;
        }
    }
}
