//! The work that the flush actor starts. Each piece reports back to it, whatever happens to it.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use streamhouse_metadata::{Command, Outcome, RegisterNode};
use streamhouse_storage::object::{CommitResult, HEADER_BYTES, NewExtent, ObjectBuilder, ObjectHeader};
use streamhouse_storage::{Backoff, Purpose, PutError, PutOptions};
use streamhouse_types::{Attempt, Incarnation, ObjectId, Slot, SlotSequence};
use tokio::task::JoinHandle;

use super::actor::{Msg, UploadFailure};
use super::lane::Uploaded;
use super::{FlushContext, StoreAccess};
use crate::error::{NotRegistered, Obstacle};
use crate::log::ProposeError;

/// Tells the actor something, at the latest when it is dropped: work that panics is work that failed.
struct Report {
    me: ActorRef<Msg>,
    unless_sent: Option<Msg>,
}

impl Report {
    fn new(me: ActorRef<Msg>, unless_sent: Msg) -> Self {
        Self { me, unless_sent: Some(unless_sent) }
    }

    fn send(mut self, msg: Msg) {
        self.unless_sent = Some(msg);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(msg) = self.unless_sent.take() {
            // An actor that has stopped has answered everyone.
            drop(self.me.cast(msg));
        }
    }
}

/// An object to be uploaded.
pub(super) struct Upload {
    pub(super) slot: Slot,
    pub(super) extents: Vec<NewExtent>,
    pub(super) results: Vec<CommitResult>,
    pub(super) deadline: Duration,
}

/// Starts an upload.
pub(super) fn upload(context: &Arc<FlushContext>, upload: Upload, me: ActorRef<Msg>) {
    let context = Arc::clone(context);
    let Slot { incarnation, sequence, .. } = upload.slot;
    let failed = Msg::Uploaded(incarnation, sequence, Err(UploadFailure(Obstacle::Restarted)));
    let report = Report::new(me, failed);
    tokio::spawn(async move {
        let result = upload_object(&context, upload).await;
        report.send(Msg::Uploaded(incarnation, sequence, result));
    });
}

async fn upload_object(context: &FlushContext, upload: Upload) -> Result<Uploaded, UploadFailure> {
    let begun = context.env.clock.now();
    let created = context.env.clock.wall();
    let pieces: Vec<_> = upload.extents.iter().flat_map(|extent| extent.pieces.iter().cloned()).collect();
    let mut builder = ObjectBuilder::new();
    #[expect(clippy::cast_precision_loss, reason = "a histogram")]
    context.meters.object_partitions.record(upload.extents.len() as f64);
    for extent in upload.extents {
        builder.push(extent);
    }
    for result in upload.results {
        builder.push_result(result);
    }
    let built = builder.finish();
    let object = |attempt| ObjectId { slot: upload.slot, attempt: Attempt::new(attempt) };
    let options = PutOptions { purpose: Purpose::Produce, deadline: upload.deadline };
    // Each attempt has a name of its own: an earlier one may still land, and its name is bound to its bytes.
    let name = |attempt| {
        let header = ObjectHeader { cluster: context.layout.cluster(), object: object(attempt), created };
        (context.layout.wal_key(&object(attempt)), built.payload(&header))
    };
    let mut access = context.access.subscribe();
    let stored = tokio::select! {
        biased;
        // What was sent may still land: an object without a commit, under a name that nothing else will have.
        Ok(_) = access.wait_for(|access| *access == StoreAccess::CutOff) => {
            return Err(UploadFailure(Obstacle::CutOff));
        }
        stored = context.store.put_named(options, name) => stored,
    };
    let attempt = stored.map_err(|error| {
        let slot = upload.slot.sequence;
        let cause = &error as &dyn std::error::Error;
        match &error {
            // The tripwire: names are never used twice by one incarnation.
            PutError::Conflict { .. } => {
                tracing::error!(%slot, error = cause, "another process writes under this node's identity");
            }
            _ => tracing::warn!(%slot, error = cause, "object was not stored"),
        }
        UploadFailure::from(&error)
    })?;
    context.tail.insert(object(attempt), HEADER_BYTES, pieces);
    context.meters.upload.record(context.env.clock.now().saturating_sub(begun).as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a histogram")]
    context.meters.object_bytes.record(built.length() as f64);
    Ok(Uploaded { attempt: Attempt::new(attempt), length: built.length(), crc: built.body_crc() })
}

/// Starts a proposal of several commits.
pub(super) fn propose(
    context: &Arc<FlushContext>,
    incarnation: Incarnation,
    proposals: Vec<(SlotSequence, Command)>,
    me: ActorRef<Msg>,
) {
    let (sequences, commands): (Vec<_>, Vec<_>) = proposals.into_iter().unzip();
    let lost = ProposeError::Unknown { reason: "the proposal was lost inside the node".to_owned() };
    let unanswered = sequences.iter().map(|sequence| (*sequence, Err(lost.clone()))).collect();
    let report = Report::new(me, Msg::Decided(incarnation, unanswered));
    let log = Arc::clone(&context.log);
    tokio::spawn(async move {
        let mut answers = log.propose(commands).await;
        answers.resize(sequences.len(), Err(lost));
        report.send(Msg::Decided(incarnation, sequences.into_iter().zip(answers).collect()));
    });
}

/// Starts to give up the slots below one.
pub(super) fn advance_lo(context: &Arc<FlushContext>, slot: Slot, me: ActorRef<Msg>) {
    let lost = ProposeError::Unknown { reason: "the proposal was lost inside the node".to_owned() };
    let report = Report::new(me, Msg::LoAdvanced(slot.incarnation, Err(lost.clone())));
    let log = Arc::clone(&context.log);
    tokio::spawn(async move {
        let answer = log.propose(vec![Command::AdvanceLo { slot }]).await.pop().unwrap_or(Err(lost));
        report.send(Msg::LoAdvanced(slot.incarnation, answer));
    });
}

/// Starts to wait for a time.
pub(super) fn wake(context: &Arc<FlushContext>, at: Duration, me: ActorRef<Msg>) -> JoinHandle<()> {
    let clock = Arc::clone(&context.env.clock);
    tokio::spawn(async move {
        clock.sleep_until(at).await;
        drop(me.cast(Msg::Woken));
    })
}

/// Starts to register the node as a new incarnation; goes on until it is registered, refused, or not wanted any more.
pub(super) fn register(context: &Arc<FlushContext>, me: ActorRef<Msg>) {
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let mut request = [0; 16];
        context.env.rng.fill(&mut request);
        let command = Command::RegisterNode(RegisterNode {
            request,
            node: context.node,
            zone: context.zone.clone(),
            addresses: context.addresses.clone(),
        });
        let mut backoff = Backoff::new();
        while me.get_status() < ractor::ActorStatus::Stopping {
            // A node that is registered is given homes at once, and has to hear of it: one that is far behind the leader
            // would be taken for lost before it does.
            if context.log.read_index().await.is_err() {
                context.env.clock.sleep(backoff.next_pause(&*context.env.rng)).await;
                continue;
            }
            let registered = match context.log.propose(vec![command.clone()]).await.pop() {
                Some(Ok(Outcome::Registered { incarnation })) => Ok(incarnation),
                Some(Ok(Outcome::Refused(refusal))) => Err(Arc::new(NotRegistered::Refused(refusal))),
                Some(Ok(Outcome::MemberRefused(refusal))) => Err(Arc::new(NotRegistered::Member(refusal))),
                // The request id makes a repeated proposal harmless.
                _ => {
                    context.env.clock.sleep(backoff.next_pause(&*context.env.rng)).await;
                    continue;
                }
            };
            drop(me.cast(Msg::Registered(registered)));
            return;
        }
    });
}
