//! What answers Kafka clients: the same broker as the gRPC API's, and the same room for opening batches.

use std::sync::Arc;

use streamhouse_advice::{Clients, HeldBack};
use streamhouse_env::Env;
use streamhouse_grpc::{HeldBackClients, OpenError, Opening, Services};
use streamhouse_kafka::{CheckError, Checking, Kafka, KafkaOptions, Presentation};
use streamhouse_proto::v1;
use streamhouse_types::batch::RecordBatch;

use crate::config::{Config, KafkaAdvertise};

/// The room in which batches are opened, as the Kafka edge asks for it.
#[derive(Debug)]
struct Opened(Opening);

#[async_trait::async_trait]
impl Checking for Opened {
    async fn check(&self, batch: RecordBatch) -> Result<RecordBatch, CheckError> {
        self.0.open(batch).await.map_err(|error| match error {
            OpenError::Batch(error) => CheckError::Batch(error),
            OpenError::Failed => CheckError::Failed,
        })
    }
}

/// The Kafka clients that are held back, as the gRPC API tells them.
#[derive(Debug)]
pub(crate) struct Waiting(pub(crate) Clients);

impl HeldBackClients for Waiting {
    fn held_back(&self) -> Vec<v1::HeldBackClient> {
        let told = |found: HeldBack| v1::HeldBackClient {
            client_id: found.client.to_string(),
            connections: found.connections,
            requests_in_flight: found.requests,
            batch_bytes: found.batch_bytes,
            answer: found.answer.try_into().ok(),
            bytes_per_second: found.bytes_per_second,
            advice: found.advice,
        };
        self.0.held_back().into_iter().map(told).collect()
    }
}

/// The Kafka edge of the node whose gRPC edge is `services`.
pub(crate) fn kafka(services: &Services, clients: &Clients, config: &Config, env: &Env) -> Kafka {
    Kafka::new(KafkaOptions {
        broker: services.broker.clone(),
        env: env.clone(),
        node: services.node,
        cluster: services.cluster_id,
        groups: services.groups.clone(),
        clients: clients.clone(),
        checking: Arc::new(Opened(services.opening.clone())),
        max_batch_bytes: services.max_batch_bytes,
        auto_create_topics: config.topics.auto_create,
        default_partitions: config.topics.default_partitions,
        presentation: presentation(config),
        drain: services.drain.clone(),
    })
}

fn presentation(config: &Config) -> Presentation {
    let listeners = &config.listeners;
    // That it is host:port was checked.
    let address = listeners.advertised_kafka.rsplit_once(':');
    match (listeners.kafka_advertise, address) {
        (KafkaAdvertise::SingleEndpoint, Some((host, port))) => Presentation::SingleEndpoint {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: port.parse().expect("the configuration is checked"),
        },
        _ => Presentation::Nodes,
    }
}
