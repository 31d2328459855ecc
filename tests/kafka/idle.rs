//! Clients that connect and then say little or nothing.

use anyhow::ensure;
use streamhouse_env::raise_open_files;
use streamhouse_tests::node::Node;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

use super::{Kafka, batch};

/// How many connections do nothing, where the machine lets processes have so many.
const IDLE: u64 = 10_000;
/// What this process keeps for other files.
const OTHERS: u64 = 500;
/// Room for the node as it is, and for ten thousand connections.
const CEILING_MIB: u64 = 256;
/// How long another client may have to wait.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_idle_connections_take_little_and_hold_up_nobody() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::new(&folder.path().join("data"));
    node.start().await?;
    let count = raise_open_files()?.saturating_sub(OTHERS).min(IDLE);
    let (mut idle, begun) = (Vec::new(), Instant::now());
    for number in 0..count {
        let mut connection = TcpStream::connect(node.kafka()).await?;
        if number % 2 == 0 {
            // Half of a length.
            connection.write_all(&[0, 0]).await?;
        }
        idle.push(connection);
    }
    println!("{count} connections in {:?}", begun.elapsed());
    let since = Instant::now();
    let work = async {
        let mut kafka = Kafka::connect(&node).await?;
        kafka.make_topic().await?;
        let producer = kafka.producer().await?;
        kafka.produce(&batch(producer, 0, "heard")?).await
    };
    let offset = tokio::time::timeout(PATIENCE, work).await??;
    let resident = node.resident_bytes()?.0 >> 20;
    println!("another client was served in {:?}; {resident} MiB resident", since.elapsed());
    ensure!(offset == 0, "{offset}");
    ensure!(resident <= CEILING_MIB, "{resident} MiB resident");
    drop(idle);
    Ok(())
}
