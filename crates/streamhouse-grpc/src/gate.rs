//! The way into every gRPC method: who asks, is the method known, how long did it take.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use futures::future::BoxFuture;
use streamhouse_env::Clock;
use streamhouse_types::error_code::ErrorCode;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::header::DATE;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::authorize::{Caller, Principal, row_of};
use crate::metrics::{REQUEST_SECONDS, REQUESTS};
use crate::status::{Fault, told};

/// How long a request that comes while the node starts is held back before it is refused.
pub const START_PATIENCE: Duration = Duration::from_secs(5);

/// Puts a [`Gate`] before a listener's services.
#[derive(Debug, Clone)]
pub struct GateLayer {
    clock: Arc<dyn Clock>,
    /// Whether the node has started, where that is waited for.
    started: Option<Start>,
}

/// What tells whether a node has started, or will not any more.
#[derive(Debug, Clone)]
struct Start {
    started: watch::Receiver<bool>,
    stops: CancellationToken,
}

impl GateLayer {
    /// A layer that measures by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, started: None }
    }

    /// This layer, which lets requests through only once `started` is true. Before, the node tells about itself and the
    /// cluster; everything else is held back for five seconds at most, or until it `stops`, and then refused: it did not
    /// happen.
    #[must_use]
    pub fn once(self, started: watch::Receiver<bool>, stops: CancellationToken) -> Self {
        Self { started: Some(Start { started, stops }), ..self }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate { inner, clock: Arc::clone(&self.clock), started: self.started.clone() }
    }
}

/// Lets a request through when its method has a row in the table, and notes on it who sent it.
#[derive(Debug, Clone)]
pub struct Gate<S> {
    inner: S,
    clock: Arc<dyn Clock>,
    started: Option<Start>,
}

impl<S, In, Out> Service<Request<In>> for Gate<S>
where
    S: Service<Request<In>, Response = Response<Out>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    In: Send + 'static,
    Out: Default + Send + 'static,
{
    type Response = Response<Out>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        let Some(row) = row_of(request.uri().path()) else {
            let mut response = Status::unimplemented("there is no such method").into_http();
            date(&mut response, &*self.clock);
            return Box::pin(async move { Ok(response) });
        };
        request.extensions_mut().insert(Caller { principal: Principal::anonymous(), row });
        let clock = Arc::clone(&self.clock);
        let begun = clock.now();
        let too_early =
            self.started.clone().filter(|start| !*start.started.borrow() && !row.is_about_the_cluster());
        // The one that was asked whether it is ready is the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let may_pass = match too_early {
                Some(start) => start.comes(&*clock).await,
                None => true,
            };
            let response = if may_pass { inner.call(request).await? } else { starting().into_http() };
            let mut response = told_well(response);
            date(&mut response, &*clock);
            let took = clock.now().saturating_sub(begun);
            let code = code_word(response.headers());
            metrics::counter!(REQUESTS, "protocol" => "grpc", "api" => row.api, "code" => code).increment(1);
            metrics::histogram!(REQUEST_SECONDS, "protocol" => "grpc", "api" => row.api).record(took);
            Ok(response)
        })
    }
}

impl Start {
    /// Waits until the node has started; `false` when that takes too long.
    async fn comes(mut self, clock: &dyn Clock) -> bool {
        tokio::select! {
            biased;
            started = self.started.wait_for(|started| *started) => started.is_ok(),
            () = self.stops.cancelled() => false,
            () = clock.sleep(START_PATIENCE) => false,
        }
    }
}

fn starting() -> Status {
    let text = "the node starts: it is not registered in its cluster yet";
    Fault::new(ErrorCode::MetadataUnavailable, text).into()
}

/// An answer that fails before its first message, as every other error is told: also when it is the library that fails.
fn told_well<Out: Default>(response: Response<Out>) -> Response<Out> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok && status.details().is_empty() => told(status).into_http(),
        _ => response,
    }
}

/// Says when a response was made. The HTTP library would ask the machine's clock.
fn date<T>(response: &mut Response<T>, clock: &dyn Clock) {
    /// The form has four digits for the year.
    const LATEST: u64 = 253_000_000_000_000;
    let millis = u64::try_from(clock.wall().as_millis()).unwrap_or_default().min(LATEST);
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(millis));
    response.headers_mut().insert(DATE, HeaderValue::from_str(&text).expect("a date is plain text"));
}

/// The code of an answer that fails before its first message; every other answer has begun well.
fn code_word(headers: &HeaderMap) -> &'static str {
    let code = headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()));
    match code.unwrap_or(Code::Ok) {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
