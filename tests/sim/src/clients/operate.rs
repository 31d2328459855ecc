//! An operator who changes the cluster while it is under load.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use streamhouse_proto::v1::cluster_service_client::ClusterServiceClient;
use streamhouse_proto::v1::{DrainNodeRequest, RemoveNodeRequest, SetVotersRequest, UndrainNodeRequest};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::{Client, replace};
use crate::seed::Dice;
use crate::swarm::{Kind, OPERATED};
use crate::world::Stage;

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(client: Client) {
    let dice = client.seed.branch("operator").rng();
    let kinds: Vec<Kind> =
        client.world.plan.kinds.iter().copied().filter(|kind| OPERATED.contains(kind)).collect();
    while !kinds.is_empty() && client.world.stage() == Stage::Faults {
        act(&client, &dice, *dice.pick(&kinds)).await;
        pause_under_load(&client, dice.magnitude(500, 15_000)).await;
    }
    if kinds.contains(&Kind::Replace) {
        replace::complete(&client, &dice).await;
    }
    // A node that gives its work away would never take any again.
    for site in &client.world.nodes {
        if kinds.contains(&Kind::Drain) || kinds.contains(&Kind::Replace) {
            while call(&client, &dice, Order::Undrain(site.id().get())).await.is_err() {
                client.pause(200).await;
            }
        }
    }
}

/// A pause that ends with the load.
pub(super) async fn pause_under_load(client: &Client, millis: u64) {
    tokio::select! {
        biased;
        () = client.world.passed(Stage::Faults) => {}
        () = client.pause(millis) => {}
    }
}

/// What a node is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Drain(u64),
    Undrain(u64),
    Remove(u64),
    Voters(u32),
}

async fn act(client: &Client, dice: &Dice, kind: Kind) {
    let site = dice.pick(&client.world.nodes);
    let node = site.id().get();
    let order = match kind {
        Kind::Replace => return replace::replace(client, dice, site).await,
        Kind::Wipe => return replace::wipe(client, dice, site).await,
        Kind::Voters => Order::Voters(*dice.pick(&[1, 3])),
        _ if dice.one_in(2) => Order::Undrain(node),
        _ => Order::Drain(node),
    };
    let outcome = call(client, dice, order).await;
    tracing::info!(?order, ok = outcome.is_ok(), "the operator has asked");
    if outcome.is_ok() {
        client.world.coverage.count(&format!("operator: {kind:?}"));
    }
}

/// Asks one of the nodes.
pub(super) async fn call(client: &Client, dice: &Dice, order: Order) -> Result<(), Status> {
    let addresses = client.world.addresses();
    let mut service = ClusterServiceClient::new(channel(client, dice.pick(&addresses).as_str()));
    let request_id = String::new();
    let work = async {
        match order {
            Order::Drain(node_id) => {
                let request = DrainNodeRequest { node_id, request_id, validate_only: false };
                service.drain_node(request).await.map(drop)
            }
            Order::Undrain(node_id) => {
                let request = UndrainNodeRequest { node_id, request_id, validate_only: false };
                service.undrain_node(request).await.map(drop)
            }
            Order::Remove(node_id) => {
                let request = RemoveNodeRequest { node_id, request_id, validate_only: false };
                service.remove_node(request).await.map(drop)
            }
            Order::Voters(voters) => {
                service.set_voters(SetVotersRequest { voters, request_id }).await.map(drop)
            }
        }
    };
    tokio::select! {
        biased;
        answer = work => answer,
        () = client.env.clock.sleep(PATIENCE) => Err(Status::deadline_exceeded("no answer")),
    }
}

fn channel(client: &Client, address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let (net, address) = (client.env.net.clone(), address.to_owned());
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let (net, address) = (net.clone(), address.clone());
        async move { net.connect(&address).await.map(TokioIo::new) }
    }))
}
