//! The listeners.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use s3s::{Body, S3Result};
use streamhouse_env::{Clock, Connection, Env, Listener, Net};
use tokio::task::JoinSet;

use crate::control;
use crate::objects::{Objects, Place};
use crate::plan::{FaultPlan, Faults};
use crate::s3::{Cut, FaultyS3};

/// The secret of every access key, for clients whose signature is needed to read what they send.
const SECRET: &str = "secret";

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where S3 is spoken; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the faults are controlled; port 0 picks a free one.
    pub control: SocketAddr,
    /// Buckets that are there from the start.
    pub buckets: Vec<String>,
    /// Where objects are kept.
    pub place: Place,
    /// Decides the faults.
    pub seed: u64,
    /// What fails from the start.
    pub plan: FaultPlan,
}

impl Default for ServerOptions {
    /// On loopback, with the bucket `bucket`, 4 GiB in memory, no faults.
    fn default() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: loopback,
            control: loopback,
            buckets: vec!["bucket".to_owned()],
            place: Place::Memory { cap_bytes: 4 << 30 },
            seed: 0,
            plan: FaultPlan::new(),
        }
    }
}

/// A running server. It stops when it is dropped.
#[derive(Debug)]
pub struct FaultServer {
    address: SocketAddr,
    control: SocketAddr,
    faults: Arc<Faults>,
    objects: Arc<Objects>,
    /// Aborted when it is dropped.
    _tasks: JoinSet<()>,
}

impl FaultServer {
    /// Starts a server.
    ///
    /// # Errors
    /// When a port cannot be listened on.
    pub async fn start(options: ServerOptions) -> io::Result<Self> {
        Self::start_on(options, &Env::system()).await
    }

    /// As [`start`](Self::start), with the sockets and the clock of `env`.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_on(options: ServerOptions, env: &Env) -> io::Result<Self> {
        let listener = env.net.listen(options.listen).await?;
        let control_listener = env.net.listen(options.control).await?;
        let (address, control) = (listener.local_addr()?, control_listener.local_addr()?);
        let faults = Arc::new(Faults::on(options.seed, env.clock.clone()));
        faults.set_plan(options.plan);
        let objects = Arc::new(Objects::new(options.place));
        for bucket in &options.buckets {
            objects.create_bucket(bucket);
        }
        let mut builder =
            S3ServiceBuilder::new(FaultyS3 { objects: objects.clone(), faults: faults.clone() });
        builder.set_auth(AnyKey);
        builder.set_access(AllowAll);
        builder.set_validation(ShortNames);
        let mut tasks = JoinSet::new();
        let door = Door { net: env.net.clone(), address };
        tasks.spawn(serve_s3(listener, door, builder.build(), faults.clone()));
        tasks.spawn(serve_control(control_listener, faults.clone(), objects.clone()));
        Ok(Self { address, control, faults, objects, _tasks: tasks })
    }

    /// The base URL of the S3 server.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL where faults are controlled.
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}/_faults", self.control)
    }

    /// Where S3 is spoken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What fails.
    #[must_use]
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// What is stored, to be looked at past every fault.
    #[must_use]
    pub fn objects(&self) -> &Arc<Objects> {
        &self.objects
    }
}

/// Where the server listens.
struct Door {
    net: Arc<dyn Net>,
    address: SocketAddr,
}

async fn serve_s3(listener: Box<dyn Listener>, door: Door, service: S3Service, faults: Arc<Faults>) {
    let mut refusing = faults.refusing();
    let mut listener = listener;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok(stream) = accepted {
                    connections.spawn(serve_connection(stream, service.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
            // The guard is let go at once.
            Ok(()) = async { refusing.wait_for(|refusing| *refusing).await.map(drop) } => {
                drop(listener);
                connections.shutdown().await;
                let _ = refusing.wait_for(|refusing| !refusing).await;
                listener = door.listen_again(&**faults.clock()).await;
            }
        }
    }
}

impl Door {
    /// Listens again where we listened before.
    async fn listen_again(&self, clock: &dyn Clock) -> Box<dyn Listener> {
        loop {
            match self.net.listen(self.address).await {
                Ok(listener) => return listener,
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "cannot listen again yet");
                    clock.sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn serve_connection(stream: Connection, service: S3Service) {
    let serve = service_fn(move |request| answer(service.clone(), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cut, as planned")]
struct CutError;

async fn answer(service: S3Service, request: Request<Incoming>) -> Result<Response<Body>, s3s::StdError> {
    let mut request = request.map(Body::from);
    forget_signature(request.headers_mut());
    let cut = Cut::default();
    request.extensions_mut().insert(cut.clone());
    let response = service.call(request).await;
    // An error closes the connection without an answer.
    if cut.is_set() { Err(Box::new(CutError)) } else { response.map_err(Into::into) }
}

/// Anyone may do anything, so signatures are not computed; only where one is needed to take the body apart.
fn forget_signature(headers: &mut HeaderMap) {
    let sha = headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !sha.starts_with("STREAMING-") {
        headers.remove(header::AUTHORIZATION);
    }
}

struct AnyKey;

#[async_trait::async_trait]
impl S3Auth for AnyKey {
    async fn get_secret_key(&self, _: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(SECRET))
    }
}

struct AllowAll;

#[async_trait::async_trait]
impl S3Access for AllowAll {
    async fn check(&self, _: &mut S3AccessContext<'_>) -> S3Result<()> {
        Ok(())
    }
}

/// Buckets may have names as short as `b`.
struct ShortNames;

impl NameValidation for ShortNames {
    fn validate_bucket_name(&self, name: &str) -> bool {
        (1..=63).contains(&name.len())
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-'))
    }
}

async fn serve_control(listener: Box<dyn Listener>, faults: Arc<Faults>, objects: Arc<Objects>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok(stream) = accepted else { continue };
                let (faults, objects) = (faults.clone(), objects.clone());
                let serve = service_fn(move |request| control::handle(request, faults.clone(), objects.clone()));
                connections.spawn(async move {
                    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await {
                        tracing::debug!(%error, "control connection ended");
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
