//! HTTP over the sockets of the node's environment, where those are not the machine's: in a simulation. Plain HTTP only.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::future::BoxFuture;
use http::Uri;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use streamhouse_env::{Clock, Env, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{CONNECT_TIMEOUT, POOL_IDLE};

/// A client that opens its connections through `env`.
pub(super) fn client(env: &Env) -> HttpClient {
    let dial = Dial { net: env.net.clone(), clock: env.clock.clone() };
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(POOL_IDLE);
    HttpClient::new(Service(builder.build(dial)))
}

#[derive(Debug)]
struct Service(Client<Dial, HttpRequestBody>);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let reply = self.0.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        Ok(reply.map(|body| {
            HttpResponseBody::new(body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)))
        }))
    }
}

/// Opens connections.
#[derive(Debug, Clone)]
struct Dial {
    net: Arc<dyn Net>,
    clock: Arc<dyn Clock>,
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            if uri.scheme_str() != Some("http") {
                return Err("over these sockets only plain HTTP is spoken".into());
            }
            let host = uri.host().ok_or("the URL has no host")?;
            let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
            tokio::select! {
                biased;
                connected = dial.net.connect(&address) => Ok(TokioIo::new(Stream(connected?))),
                () = dial.clock.sleep(CONNECT_TIMEOUT) => Err("no connection in time".into()),
            }
        })
    }
}

/// A connection as the HTTP library wants it.
struct Stream(streamhouse_env::Connection);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
