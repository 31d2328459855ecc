//! What a command has at hand while it runs.

use std::future::Future;
use std::time::Duration;

use streamhouse_client::{ClientError, StreamHouse};
use streamhouse_env::Env;
use tokio::sync::watch;

use crate::address::{self, Address};
use crate::args::{Globals, Shape};
use crate::exit::Exit;
use crate::failure::{Failure, Stop};
use crate::output::Output;

/// Whether the user wants the command to end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens for Ctrl-C from now on: the first asks the command to end, the second ends the process.
    pub(crate) fn listen() -> Self {
        let (wanted, seen) = watch::channel(false);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                wanted.send_replace(true);
                let _second = tokio::signal::ctrl_c().await;
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
        });
        Self(seen)
    }

    /// Turns true when the user wants the command to end.
    pub(crate) fn signal(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }

    /// Waits until the user wants the command to end. Cancel-safe.
    pub(crate) async fn wanted(&mut self) {
        if self.0.wait_for(|wanted| *wanted).await.is_err() {
            // Signals cannot be listened to: the process ends by them anyway.
            std::future::pending::<()>().await;
        }
    }
}

/// What a command has at hand.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Where results and talk go.
    pub(crate) output: Output,
    /// Time, randomness and sockets.
    pub(crate) env: Env,
    /// Whether the user wants the command to end.
    pub(crate) interrupt: Interrupt,
    /// Longest wait for an answer, where the user gave one.
    pub(crate) timeout: Option<Duration>,
    server: Option<String>,
}

impl Context {
    /// Reads the global options for a command of this shape.
    ///
    /// # Errors
    /// When the form that was asked for is not one that the command has.
    pub(crate) fn new(globals: &Globals, shape: Shape) -> Result<Self, Failure> {
        Ok(Self {
            output: globals.output(shape)?,
            env: Env::system(),
            interrupt: Interrupt::listen(),
            timeout: globals.timeout,
            // A variable that is set to nothing names no server.
            server: globals.server.clone().filter(|address| !address.is_empty()),
        })
    }

    /// The server that the options, the environment or a running dev node name.
    pub(crate) fn address(&self) -> Result<String, Failure> {
        Ok(address::find(self.server.as_deref())?.text)
    }

    /// Connects to the server that the options, the environment or a running dev node name.
    pub(crate) async fn connect(&self) -> Result<StreamHouse, Stop> {
        let address = address::find(self.server.as_deref())?;
        let mut builder = StreamHouse::builder().env(self.env.clone());
        if let Some(timeout) = self.timeout {
            builder = builder.request_timeout(timeout).connect_timeout(timeout);
        }
        let connected = self.or_interrupt(builder.connect(&address.text)).await?;
        connected.map_err(|error| unreachable(&error, &address).into())
    }

    /// Waits for a call of the client, and stops waiting when the user wants so.
    pub(crate) async fn call<T, E: ClientError>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Stop> {
        self.or_interrupt(call).await?.map_err(|error| Failure::of_client(&error).into())
    }

    /// Waits for `work`, unless the user wants the command to end.
    pub(crate) async fn or_interrupt<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut interrupt = self.interrupt.clone();
        tokio::select! {
            done = work => Ok(done),
            () = interrupt.wanted() => Err(Stop::Said(Exit::Interrupted)),
        }
    }
}

fn unreachable(error: &impl ClientError, address: &Address) -> Failure {
    let mut failure = Failure::of_client(error);
    failure.message = format!("{} ({})", failure.message, address.origin);
    failure
}
