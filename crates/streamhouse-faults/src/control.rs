//! Turning faults on and off over HTTP: `GET /_faults` tells the state, `POST /_faults` takes a [`Command`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use crate::objects::Objects;
use crate::plan::{Counters, Fault, FaultPlan, Faults, Op};

const COMMAND_BYTES_MAX: usize = 64 << 10;

/// What the server is told, as JSON such as `{"stop": {"millis": 5000}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Replaces the plan.
    Plan(FaultPlan),
    /// The next requests of a kind fail so.
    Next {
        /// Which kind.
        op: Op,
        /// How they fail.
        fault: Fault,
        /// How many.
        count: usize,
    },
    /// Requests are taken and not answered for so long.
    Stop {
        /// How long.
        millis: u64,
    },
    /// Connections are cut and refused for so long.
    Refuse {
        /// How long.
        millis: u64,
    },
}

/// What the server tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Report {
    plan: FaultPlan,
    #[serde(flatten)]
    counters: Counters,
    objects: u64,
    bytes: u64,
}

pub(crate) async fn handle(
    request: Request<Incoming>,
    faults: Arc<Faults>,
    objects: Arc<Objects>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/_faults" {
        return Ok(text(StatusCode::NOT_FOUND, "only /_faults is here".to_owned()));
    }
    if *request.method() == Method::POST {
        let body = match Limited::new(request.into_body(), COMMAND_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Ok(text(StatusCode::BAD_REQUEST, error.to_string())),
        };
        match serde_json::from_slice(&body) {
            Ok(command) => obey(command, &faults),
            Err(error) => return Ok(text(StatusCode::BAD_REQUEST, error.to_string())),
        }
    }
    let (count, bytes) = objects.totals();
    let report = Report { plan: faults.plan(), counters: faults.counters(), objects: count, bytes };
    let json = serde_json::to_string(&report).expect("a report is plain data");
    Ok(text(StatusCode::OK, json))
}

fn obey(command: Command, faults: &Arc<Faults>) {
    match command {
        Command::Plan(plan) => faults.set_plan(plan),
        Command::Next { op, fault, count } => faults.push_next(op, fault, count),
        Command::Stop { millis } => {
            faults.stop();
            after(millis, faults, Faults::resume);
        }
        Command::Refuse { millis } => {
            faults.refuse();
            after(millis, faults, Faults::accept);
        }
    }
}

fn after(millis: u64, faults: &Arc<Faults>, then: fn(&Faults)) {
    let faults = faults.clone();
    tokio::spawn(async move {
        faults.clock().sleep(Duration::from_millis(millis)).await;
        then(&faults);
    });
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
