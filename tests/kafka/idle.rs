//! Clients that connect and then say little or nothing.

use anyhow::{Context as _, ensure};
use streamhouse_env::raise_open_files;
use streamhouse_tests::node::Node;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

use super::{Kafka, batch};

/// How many connections do nothing, where the machine lets processes have so many.
const IDLE: u64 = 10_000;
/// Files that the node keeps for everything but its Kafka clients, and this process for everything but these.
const OTHERS: u64 = 2_500;
/// Room for the node as it is, and for ten thousand connections.
const CEILING_MIB: u64 = 256;
/// How long another client may have to wait.
const PATIENCE: Duration = Duration::from_secs(5);
const API_VERSIONS: i16 = 18;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_idle_connections_take_little_and_hold_up_nobody() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = Node::new(&folder.path().join("data"));
    node.start().await?;
    let count = raise_open_files().saturating_sub(OTHERS).min(IDLE);
    let (mut idle, begun) = (Vec::new(), Instant::now());
    for number in 0..count {
        let greet = async {
            let mut client = Kafka(TcpStream::connect(node.kafka()).await?);
            client.ask(API_VERSIONS, 0, &[]).await?;
            if number % 10 == 0 {
                // Half of a length.
                client.0.write_all(&[0, 0]).await?;
            }
            anyhow::Ok(client)
        };
        let greeted = tokio::time::timeout(PATIENCE, greet).await;
        idle.push(greeted.with_context(|| format!("after {number} connections"))??);
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
    let quiet = idle.iter().skip(1).step_by(10);
    for client in quiet {
        let read = client.0.try_read(&mut [0]).err().context("an idle connection was ended")?;
        ensure!(read.kind() == std::io::ErrorKind::WouldBlock, "{read}");
    }
    Ok(())
}
