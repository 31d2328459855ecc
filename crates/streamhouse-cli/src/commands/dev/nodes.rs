//! `streamhouse dev --nodes N`: a cluster on this machine, one process a node, so that one of them can be killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamhouse_server::DevOptions;
use tokio::sync::mpsc;

use crate::failure::{Failure, Stop};

/// Default ports of the first node; those of the second are a hundred higher, and so on.
const KAFKA_PORT: u16 = 9092;
const GRPC_PORT: u16 = 9094;
const INTERNAL_PORT: u16 = 9095;
const HTTP_PORT: u16 = 8080;
const PORT_STEP: u16 = 100;
/// The file with the addresses that the nodes use among each other: the same after a restart.
const MEMBERS: &str = "members.json";

/// What all nodes share.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) nodes: u32,
    pub(super) data_dir: PathBuf,
    /// What each of them is told, but for what must differ.
    pub(super) options: DevOptions,
}

/// A node that runs.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct NodeReady {
    pub(super) node_id: u64,
    pub(super) kafka: String,
    pub(super) grpc: String,
    pub(super) http: String,
    pub(super) cluster_id: String,
    pub(super) store_url: String,
}

/// What a child process says of itself.
pub(super) enum News {
    Ready(NodeReady),
    /// It has ended, after this word about why; null without one.
    Ended(Value),
}

/// The processes of the nodes, by number, each with the pipe whose end tells it that this process is gone. Dropping it
/// kills those that still run.
#[derive(Default)]
pub(super) struct Children(BTreeMap<u32, (Child, Option<ChildStdin>)>);

impl Plan {
    /// The address of node `number` for one listener: the one given (port 0 for each a free one), else the default.
    fn address(given: Option<&str>, first: u16, number: u32) -> Result<String, Failure> {
        let step = u16::try_from(number - 1).unwrap_or(u16::MAX).saturating_mul(PORT_STEP);
        let Some(text) = given else {
            return Ok(format!("127.0.0.1:{}", first.saturating_add(step)));
        };
        let address: SocketAddr = text
            .parse()
            .map_err(|_| Failure::usage(format!("`{text}` is not an address, such as 127.0.0.1:9094")))?;
        let port = if address.port() == 0 { 0 } else { address.port().saturating_add(step) };
        Ok(SocketAddr::new(address.ip(), port).to_string())
    }

    /// The addresses that the nodes use among each other. They are told to the others before a node runs, so free ports
    /// are picked here, once for ever.
    pub(super) fn members(&self) -> Result<Vec<String>, Stop> {
        let file = self.data_dir.join(MEMBERS);
        let mut members: Vec<String> = match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| {
                Failure::usage(format!("{} makes no sense: {error}", file.display()))
                    .hint("remove the data directory to begin anew")
            })?,
            Err(_) => Vec::new(),
        };
        for number in u32::try_from(members.len()).unwrap_or(u32::MAX) + 1..=self.nodes {
            let wanted = Self::address(self.options.internal_addr.as_deref(), INTERNAL_PORT, number)?;
            members.push(if wanted.ends_with(":0") { free_port(&wanted)? } else { wanted });
        }
        fs::create_dir_all(&self.data_dir)?;
        fs::write(&file, serde_json::to_string(&members).expect("a list of texts"))?;
        Ok(members)
    }

    /// Where node `number` keeps what is its own.
    pub(super) fn folder(&self, number: u32) -> PathBuf {
        self.data_dir.join(format!("n{number}"))
    }

    fn store_url(&self) -> String {
        let local = || {
            let folder = self.data_dir.join("store");
            let folder = std::path::absolute(&folder).unwrap_or(folder);
            format!("file://{}", folder.display())
        };
        self.options.store.clone().unwrap_or_else(local)
    }

    /// The command line of node `number`.
    fn command(&self, number: u32, members: &[String]) -> Result<Command, Stop> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("dev")
            .args(["-o", "json", "--stop-with-stdin"])
            .arg("--data-dir")
            .arg(self.folder(number))
            .arg(format!("--node.id={number}"))
            .arg(format!("--internal-addr={}", members[number as usize - 1]))
            .arg(format!("--cluster.seeds={}", members.join(",")))
            .arg(format!("--store={}", self.store_url()));
        let options = &self.options;
        let clients = [
            ("kafka", &options.kafka_addr, KAFKA_PORT),
            ("grpc", &options.grpc_addr, GRPC_PORT),
            ("http", &options.http_addr, HTTP_PORT),
        ];
        for (name, given, first) in clients {
            command.arg(format!("--{name}-addr={}", Self::address(given.as_deref(), first, number)?));
        }
        let settings = options.settings.iter();
        command.args(settings.map(|(key, value)| format!("--{}={value}", key.replace('_', "-"))));
        // Ctrl-C is for this process, which then stops the nodes in order.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// Starts node `number`; what it says comes through `news`.
    pub(super) fn start(
        &self,
        number: u32,
        members: &[String],
        children: &mut Children,
        news: &mpsc::Sender<(u32, News)>,
    ) -> Result<(), Stop> {
        let mut child = self.command(number, members)?.spawn()?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let stdin = child.stdin.take();
        children.0.insert(number, (child, stdin));
        let news = news.clone();
        // What it logs is passed on; why it ends is said once, by this process.
        let why = std::thread::spawn(move || {
            let mut why = Value::Null;
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                match serde_json::from_str::<Value>(&line) {
                    Ok(said) if said["error"].is_object() => why = said,
                    _ => drop(writeln!(io::stderr(), "{line}")),
                }
            }
            why
        });
        std::thread::spawn(move || {
            let mut said = String::new();
            // Reads on to the end, so that the node never waits for room in the pipe.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                said.push_str(&line);
                if let Ok(ready) = serde_json::from_str(&said) {
                    said.clear();
                    drop(news.blocking_send((number, News::Ready(ready))));
                }
            }
            drop(news.blocking_send((number, News::Ended(why.join().unwrap_or_default()))));
        });
        Ok(())
    }

    /// Tells other programs where all nodes are, as a list.
    pub(super) fn write_endpoints(&self, ready: &BTreeMap<u32, NodeReady>) -> io::Result<()> {
        let told = |node: &NodeReady| json!({ "kafka": node.kafka, "grpc": node.grpc, "http": node.http });
        let list: Vec<_> = ready.values().map(told).collect();
        let text = format!("{}\n", serde_json::Value::from(list));
        let fresh = self.data_dir.join("endpoints.json.new");
        fs::write(&fresh, text)?;
        fs::rename(fresh, self.data_dir.join("endpoints.json"))
    }

    /// Takes the addresses away.
    pub(super) fn remove_endpoints(&self) {
        drop(fs::remove_file(self.data_dir.join("endpoints.json")));
    }
}

fn free_port(address: &str) -> Result<String, Stop> {
    Ok(TcpListener::bind(address)?.local_addr()?.to_string())
}

impl Children {
    /// How a node that ended did so.
    pub(super) fn ended(&mut self, number: u32) -> String {
        match self.0.remove(&number).map(|(mut child, _stdin)| child.wait()) {
            Some(Ok(status)) => status.to_string(),
            Some(Err(error)) => error.to_string(),
            None => "it was stopped".to_owned(),
        }
    }

    /// Asks the nodes to stop, the last first, each when the one before has stopped: the others take over its homes. When
    /// no more than a `majority` is left those go together: one that stayed would wait for others to agree with.
    pub(super) fn stop(&mut self, majority: usize) -> io::Result<()> {
        while self.0.len() > majority {
            let Some((_, (mut child, _stdin))) = self.0.pop_last() else { break };
            terminate(child.id())?;
            child.wait()?;
        }
        for (child, _stdin) in self.0.values() {
            terminate(child.id())?;
        }
        while let Some((_, (mut child, _stdin))) = self.0.pop_last() {
            child.wait()?;
        }
        Ok(())
    }

    /// The process of each node.
    pub(super) fn pids(&self) -> BTreeMap<u32, u32> {
        self.0.iter().map(|(number, (child, _))| (*number, child.id())).collect()
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (child, _stdin) in self.0.values_mut() {
            // An error means that it has ended already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Stops this process, as SIGTERM does, when standard input ends: then whoever holds its other end is gone, however it
/// ended.
pub(super) fn stop_with_stdin() {
    std::thread::spawn(|| {
        // An error is an end as well.
        let _read = io::copy(&mut io::stdin().lock(), &mut io::sink());
        terminate(std::process::id())
    });
}

fn terminate(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the process has no number"))?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

/// A folder of a single node cannot become that of a cluster, nor the other way round.
pub(super) fn check_folder(data_dir: &Path, nodes: u32) -> Result<(), Failure> {
    let (single, cluster) = (data_dir.join("raft").exists(), data_dir.join(MEMBERS).exists());
    let shown = data_dir.display();
    match nodes {
        0 => Err(Failure::usage("a cluster has at least one node")),
        1 if cluster => {
            let members = fs::read_to_string(data_dir.join(MEMBERS)).ok();
            let members = members.and_then(|text| serde_json::from_str::<Vec<String>>(&text).ok());
            // A list that cannot be read is told of by the start that uses it.
            let nodes = members.map_or_else(|| "N as before".to_owned(), |members| members.len().to_string());
            Err(Failure::usage(format!("{shown} holds a cluster of several nodes"))
                .hint(format!("start it with --nodes {nodes}, or choose another --data-dir")))
        }
        2.. if single => Err(Failure::usage(format!("{shown} holds a single node"))
            .hint("start it without --nodes, or choose another --data-dir")),
        10.. => Err(Failure::usage("at most 9 nodes run on one machine")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_addresses_a_hundred_apart_or_free_ones() {
        let address = |given, number| Plan::address(given, GRPC_PORT, number).unwrap();
        assert_eq!(address(None, 1), "127.0.0.1:9094");
        assert_eq!(address(None, 3), "127.0.0.1:9294");
        assert_eq!(address(Some("0.0.0.0:7000"), 2), "0.0.0.0:7100");
        assert_eq!(address(Some("127.0.0.1:0"), 2), "127.0.0.1:0");
        assert!(Plan::address(Some("here"), GRPC_PORT, 1).is_err());
    }

    #[test]
    fn a_folder_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_folder(dir.path(), 1).is_ok() && check_folder(dir.path(), 3).is_ok());
        fs::write(dir.path().join(MEMBERS), "[]").unwrap();
        assert!(check_folder(dir.path(), 1).is_err() && check_folder(dir.path(), 3).is_ok());
        for (members, told) in [(r#"["a", "b", "c"]"#, "--nodes 3,"), ("no list", "--nodes N as before,")] {
            fs::write(dir.path().join(MEMBERS), members).unwrap();
            let hint = check_folder(dir.path(), 1).unwrap_err().hint.unwrap_or_default();
            assert!(hint.contains(told), "{hint}");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("raft")).unwrap();
        assert!(check_folder(dir.path(), 1).is_ok() && check_folder(dir.path(), 3).is_err());
    }

    #[test]
    fn addresses_among_nodes_stay_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = Plan {
            nodes: 2,
            data_dir: dir.path().to_owned(),
            options: DevOptions { internal_addr: Some("127.0.0.1:0".to_owned()), ..DevOptions::default() },
        };
        let first = plan.members().unwrap();
        assert_eq!(plan.members().unwrap(), first);
        plan.nodes = 3;
        assert_eq!(plan.members().unwrap()[..2], first);
    }
}
