//! The simulated S3, a host of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use streamhouse_faults::{FaultServer, Place, ServerOptions};

use crate::node::plain_env;
use crate::world::{StoreHandle, World};

pub(crate) const HOST: &str = "store";
pub(crate) const BUCKET: &str = "bucket";
const PORT: u16 = 9000;

pub(crate) fn endpoint() -> String {
    format!("http://{HOST}:{PORT}")
}

/// Serves until the end of the run.
pub(crate) async fn run(world: Arc<World>) -> turmoil::Result {
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let options = ServerOptions {
        listen: any(PORT),
        control: any(PORT + 1),
        buckets: vec![BUCKET.to_owned()],
        place: Place::Memory { cap_bytes: 2 << 30 },
        seed: world.seed.branch(HOST).number(),
        plan: Default::default(),
    };
    let server = FaultServer::start_on(options, &plain_env(&world, HOST)).await?;
    *world.store.lock() =
        Some(StoreHandle { faults: server.faults().clone(), objects: server.objects().clone() });
    std::future::pending::<()>().await;
    Ok(())
}
