//! One broker process: started, killed, stopped and started again at the same addresses.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::cluster::free_address;

/// How long a node may take to say that it is ready, on a machine that does other things too.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Most that is read of a page of metrics.
const METRICS_BYTES_MAX: u64 = 16 << 20;

/// Where the binary under test lies: `STREAMHOUSE_BINARY`, or beside this test's own executable, where
/// `cargo test --workspace` builds it.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "campaigns name the build that they test")]
    if let Ok(named) = std::env::var("STREAMHOUSE_BINARY") {
        return named.into();
    }
    let test = std::env::current_exe().expect("a test has an executable");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let binary = folder.join("streamhouse");
    let profile = if folder.ends_with("release") { " --release" } else { "" };
    assert!(
        binary.exists(),
        "{} is missing: run `cargo build -p streamhouse-cli{profile}` first",
        binary.display()
    );
    binary
}

/// The build of the version before, for tests of upgrades: `STREAMHOUSE_PREVIOUS_BINARY`, or the one under test.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn previous_binary() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "campaigns name the build that they test")]
    std::env::var("STREAMHOUSE_PREVIOUS_BINARY").map_or_else(|_| binary(), PathBuf::from)
}

/// A node that can be started many times over the same data directory.
#[derive(Debug)]
pub struct Node {
    /// What it runs; the binary under test when absent.
    build: Option<PathBuf>,
    data: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Whether a file that may not grow is an error for it, and not its end.
    survives_file_limits: bool,
    kafka: String,
    grpc: String,
    http: String,
    internal: String,
    child: Option<Child>,
}

impl Node {
    /// A node that keeps everything in `data`; nothing runs yet.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        // Chosen here, as it listens there again when it was away for a while.
        let any = || free_address(Ipv4Addr::LOCALHOST.into()).expect("a port is free").to_string();
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self {
            build: None,
            data: data.to_owned(),
            arguments,
            environment,
            survives_file_limits: false,
            kafka: any(),
            grpc: any(),
            http: any(),
            internal: any(),
            child: None,
        }
    }

    /// From its next start on it runs this build.
    pub fn set_build(&mut self, build: PathBuf) {
        self.build = Some(build);
    }

    /// Sets where other nodes reach it.
    #[must_use]
    pub fn internal(mut self, address: &str) -> Self {
        self.internal = address.to_owned();
        self
    }

    /// Adds an argument of `streamhouse dev`.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Has a write beyond the limit of file sizes fail, as on a full disk; without this the system ends the process.
    #[must_use]
    pub fn survives_file_limits(mut self) -> Self {
        self.survives_file_limits = true;
        self
    }

    /// Where Kafka clients reach it; known after the first start, and the same ever after.
    #[must_use]
    pub fn kafka(&self) -> &str {
        &self.kafka
    }

    /// Its gRPC address; known after the first start, and the same ever after.
    #[must_use]
    pub fn grpc(&self) -> &str {
        &self.grpc
    }

    /// Its HTTP address; known after the first start, and the same ever after.
    #[must_use]
    pub fn http(&self) -> &str {
        &self.http
    }

    /// What it tells a scraper.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.http).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(METRICS_BYTES_MAX).read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Where it was told to listen for other nodes.
    #[must_use]
    pub fn internal_address(&self) -> &str {
        &self.internal
    }

    /// The running process.
    ///
    /// # Panics
    /// When none runs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// What it wrote to stderr, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it stops instead, or is not ready in time; the message holds its log.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        if self.start_and_wait(READY_WITHIN).await? {
            return Ok(());
        }
        self.kill();
        bail!("not ready within {READY_WITHIN:?}:\n{}", self.log())
    }

    /// Starts it and waits at most `patience` until it is ready; tells whether it is. It runs on in either case.
    ///
    /// # Errors
    /// When it stops instead; the message holds its log.
    pub async fn start_and_wait(&mut self, patience: Duration) -> anyhow::Result<bool> {
        assert!(self.child.is_none(), "the node runs already");
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let mut child = self
            .program()
            .arg("dev")
            .arg(format!("--data-dir={}", self.data.display()))
            .arg(format!("--kafka-addr={}", self.kafka))
            .arg(format!("--grpc-addr={}", self.grpc))
            .arg(format!("--http-addr={}", self.http))
            .arg(format!("--internal-addr={}", self.internal))
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdout = child.stdout.take().expect("stdout is piped");
        self.child = Some(child);
        let (ready, is_ready) = oneshot::channel();
        std::thread::spawn(move || {
            let mut ready = Some(ready);
            // Reads on to the end, so the node never waits for room in the pipe.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.contains("ready in") {
                    ready.take().map(|ready| ready.send(()));
                }
            }
        });
        match tokio::time::timeout(patience, is_ready).await {
            Err(_) => Ok(false),
            Ok(Ok(())) => self.learn_addresses().map(|()| true),
            Ok(Err(_)) => {
                let status = self.child.take().expect("it was started").wait()?;
                bail!("stopped with {status}:\n{}", self.log())
            }
        }
    }

    fn program(&self) -> Command {
        let build = self.build.clone().unwrap_or_else(binary);
        if !self.survives_file_limits {
            return Command::new(build);
        }
        // What is ignored stays so in the program that takes the shell's place.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"trap "" XFSZ && exec "$0" "$@""#]).arg(build);
        shell
    }

    fn learn_addresses(&mut self) -> anyhow::Result<()> {
        let file = self.data.join("endpoints.json");
        // Without a directory it can tell nobody, and is where it was told to be.
        if !self.data.is_dir() {
            return Ok(());
        }
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let endpoints: serde_json::Value = serde_json::from_str(&text)?;
        let address = |name: &str| endpoints[name].as_str().map(str::to_owned).with_context(|| text.clone());
        (self.kafka, self.grpc, self.http) = (address("kafka")?, address("grpc")?, address("http")?);
        Ok(())
    }

    /// Kills it at once (SIGKILL). Nothing happens when it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already, which is what is wanted.
            drop(child.kill());
            child.wait().expect("a child of ours can be waited for");
        }
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// When it does not run, or the system does not tell.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        let child = self.child.as_mut().context("the node does not run")?;
        Ok(child.try_wait()?.is_some())
    }

    /// Waits for its end, which nobody asks for.
    ///
    /// # Errors
    /// When it does not run.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("the node does not run")?;
        Ok(child.wait()?)
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("the node does not run")?;
        let asked = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status()?;
        if !asked.success() {
            bail!("the node cannot be asked to stop");
        }
        Ok(child.wait()?)
    }

    /// Resident memory in bytes: now, and the most there has been in this life.
    ///
    /// # Errors
    /// When it does not run, or the system does not tell.
    pub fn resident_bytes(&self) -> anyhow::Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).context("no such field")?;
            let kib = line.split_whitespace().nth(1).context("no number")?.parse::<u64>()?;
            anyhow::Ok(kib * 1024)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
