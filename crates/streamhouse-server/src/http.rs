//! The HTTP port: metrics and health.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::health::{Check, Health};
use crate::telemetry::Telemetry;

/// What the pages are made from.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    pub(crate) health: Arc<Health>,
    pub(crate) telemetry: Telemetry,
}

/// The pages of the HTTP port.
pub(crate) fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/startupz", get(startupz))
        .route("/readyz", get(readyz))
        .with_state(pages)
}

async fn index() -> &'static str {
    "StreamHouse\n\n/metrics\n/livez\n/readyz?verbose\n/startupz\n"
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let text = pages.telemetry.render(&pages.health);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn livez(State(pages): State<Pages>, query: Query<Options>, headers: HeaderMap) -> Response {
    let (ok, checks) = (pages.health.is_alive(), pages.health.hearts());
    Probe { ok, state: pages.health.state(), checks }.answer(&query, &headers)
}

async fn startupz(State(pages): State<Pages>, query: Query<Options>, headers: HeaderMap) -> Response {
    let (ok, checks) = (pages.health.is_started(), Vec::new());
    Probe { ok, state: pages.health.state(), checks }.answer(&query, &headers)
}

async fn readyz(State(pages): State<Pages>, query: Query<Options>, headers: HeaderMap) -> Response {
    let (ok, checks) = (pages.health.is_ready(), pages.health.checks());
    Probe { ok, state: pages.health.state(), checks }.answer(&query, &headers)
}

/// `?verbose` asks for every check.
#[derive(Debug, serde::Deserialize)]
struct Options {
    verbose: Option<String>,
}

/// What a probe found.
struct Probe {
    ok: bool,
    state: &'static str,
    checks: Vec<Check>,
}

impl Probe {
    fn answer(&self, options: &Options, headers: &HeaderMap) -> Response {
        let Self { ok, state, checks } = self;
        let code = if *ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let wants_json = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("application/json"));
        if wants_json {
            let body = axum::Json(serde_json::json!({ "ok": ok, "state": state, "checks": checks }));
            return (code, body).into_response();
        }
        let mut text = String::from(if *ok { "ok\n" } else { "not ok\n" });
        if options.verbose.as_deref().is_some_and(|value| value != "false") {
            let _ = writeln!(text, "state: {state}");
            for check in checks {
                let mark = if check.ok { '+' } else { '-' };
                let _ = writeln!(text, "[{mark}] {} {}", check.name, check.detail);
            }
        }
        (code, text).into_response()
    }
}
