//! The facade: everything that a listener can ask of this node.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use ractor::{Actor as _, ActorRef};
use streamhouse_env::Env;
use streamhouse_metadata::{Command, State};
use streamhouse_storage::{BlockCache, CacheSettings, Layout, Store, WritesSeen, prove_writes};
use streamhouse_types::batch::BatchLimits;
use streamhouse_types::{Incarnation, LogIndex, NodeId, PartitionId, TopicId};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::budget::ReadBudgets;
use crate::error::{NotRegistered, Obstacle, UnitFault};
use crate::fetch::{Hints, Source};
use crate::flush::{
    Contact, Entry, FlushContext, FlushHandle, Load, Registration, Reply, StoreAccess, Waiter,
};
use crate::metrics::Meters;
use crate::partition::Directory;
use crate::pins::Pins;
use crate::producers::ProducerIds;
use crate::supervisor::{self, Household, Supervisor};
use crate::sweep::{SweepContext, SweepGate, SweepHandle};
use crate::tail::TailCache;
use crate::{
    AppendError, AppendRequest, Appended, BrokerSettings, ByteBudget, BytePermit, HighWatermarks,
    MetadataLog, ReadIndexError, Session, StartError, Subscription, UnitAppend, admission,
};

/// How long a disk may take to write nothing.
const LOCAL_PATIENCE: Duration = Duration::from_secs(3_600);

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes writes and reads.
    Broker,
    /// It reads only: it registers nothing, uploads nothing and sweeps nothing.
    Reader,
}

/// What a broker is made of.
pub struct BrokerOptions {
    /// What it does.
    pub role: Role,
    /// This node.
    pub node: NodeId,
    /// Its zone, may be empty.
    pub zone: String,
    /// Addresses by listener name ("kafka", "grpc", "internal"), as others reach them.
    pub addresses: Vec<(String, String)>,
    /// Clock and randomness.
    pub env: Env,
    /// The metadata log; it must be bootstrapped.
    pub log: Arc<dyn MetadataLog>,
    /// The object store.
    pub store: Store,
    /// Told of every change by the metadata log.
    pub watermarks: HighWatermarks,
    /// Whether this node is the one that sweeps, and how far it may.
    pub sweep_gate: Arc<dyn SweepGate>,
    /// What a person has set.
    pub settings: BrokerSettings,
}

/// One node's broker. Clones are the same broker.
#[derive(Clone)]
pub struct Broker(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) node: NodeId,
    pub(crate) settings: BrokerSettings,
    pub(crate) log: Arc<dyn MetadataLog>,
    pub(crate) watermarks: HighWatermarks,
    pub(crate) layout: Layout,
    access: watch::Sender<StoreAccess>,
    contact: watch::Sender<Contact>,
    pub(crate) source: Source,
    pub(crate) pins: Pins,
    pub(crate) hints: Hints,
    pub(crate) reading: ReadBudgets,
    pub(crate) meters: Arc<Meters>,
    pub(crate) sweep: SweepHandle,
    pub(crate) producers: ProducerIds,
    budget: ByteBudget,
    pub(crate) directory: Arc<Directory>,
    pub(crate) flush: FlushHandle,
    registration: watch::Receiver<Registration>,
    /// Held by whoever tries whether the store takes writes.
    proving: tokio::sync::Mutex<()>,
    sessions: AtomicU64,
    role: Role,
    supervised: Mutex<Option<Supervised>>,
}

/// The actors at work.
struct Supervised {
    supervisor: ActorRef<supervisor::Msg>,
    ended: JoinHandle<()>,
}

impl Supervised {
    /// Starts them; a reader has none.
    async fn start(role: Role, household: Household) -> Result<Option<Self>, StartError> {
        if role == Role::Reader {
            return Ok(None);
        }
        let started = Supervisor::spawn(None, Supervisor, Arc::new(household)).await;
        let (supervisor, ended) = started.map_err(|error| StartError::Actor { reason: error.to_string() })?;
        Ok(Some(Self { supervisor, ended }))
    }

    /// Stops them; one that panics while it stops has stopped.
    async fn stop(self) {
        self.supervisor.stop(None);
        drop(self.ended.await);
    }
}

/// The tail cache, and everything that is read from.
fn caches(
    settings: &BrokerSettings,
    store: &Store,
    layout: Layout,
    meters: &Meters,
) -> (Arc<TailCache>, Source) {
    let tail = Arc::new(TailCache::new(settings.tail_cache_bytes, meters.tail_bytes.clone()));
    let (capacity_bytes, disk) = (settings.block_cache_bytes, settings.disk_cache.clone());
    let cache = CacheSettings { capacity_bytes, disk, ..CacheSettings::default() };
    let blocks = BlockCache::new(store.clone(), &cache);
    (Arc::clone(&tail), Source::new(tail, blocks, layout))
}

/// The answer to a batch that was handed over. Dropping it does not take the batch back.
#[derive(Debug)]
pub struct PendingAck(oneshot::Receiver<Result<Appended, AppendError>>);

impl Future for PendingAck {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = AppendError::CommitUnknown { cause: "the node lost the batch's answer" };
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(lost)))
    }
}

/// The answer to a unit that was handed over: one [`Appended`] for each batch, in order.
#[derive(Debug)]
pub struct PendingUnit(oneshot::Receiver<Result<Vec<Appended>, AppendError>>);

impl Future for PendingUnit {
    type Output = Result<Vec<Appended>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = AppendError::CommitUnknown { cause: "the node lost the unit's answer" };
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(lost)))
    }
}

impl Broker {
    /// Registers the node as a new incarnation and starts its actors. Waits until the registration is applied.
    ///
    /// # Errors
    /// When the settings cannot be used, the log is not bootstrapped, or it refuses the registration.
    pub async fn start(options: BrokerOptions) -> Result<Self, StartError> {
        let broker = Self::begin(options).await?;
        if broker.takes_writes() {
            broker.registered().await?;
        }
        Ok(broker)
    }

    /// As [`start`](Self::start), but does not wait for the registration, which needs a majority of the voters: until
    /// [`registered`](Self::registered) returns, writes wait, and reads see what this node has applied before.
    ///
    /// # Errors
    /// When the settings cannot be used, or the log is not bootstrapped.
    pub async fn begin(options: BrokerOptions) -> Result<Self, StartError> {
        let BrokerOptions { role, node, zone, addresses, env, log, store, watermarks, sweep_gate, settings } =
            options;
        settings.check()?;
        let layout = Layout::new(crate::log::read(&*log, State::cluster).ok_or(StartError::NotBootstrapped)?);
        let meters = Arc::new(Meters::new(Arc::clone(&log), settings.in_flight_bytes));
        let (tail, source) = caches(&settings, &store, layout, &meters);
        let budget = ByteBudget::new(settings.in_flight_bytes);
        let (incarnation, registration) = watch::channel(Registration::Pending);
        let (flush, access, sweep) =
            (FlushHandle::default(), watch::Sender::default(), SweepHandle::default());
        let (directory, pins) = (Arc::new(Directory::new(flush.clone())), Pins::default());
        let household = Household {
            flush_context: Arc::new(FlushContext {
                node,
                zone,
                addresses,
                env: env.clone(),
                settings: settings.clone(),
                log: Arc::clone(&log),
                store: store.clone(),
                layout,
                tail,
                meters: Arc::clone(&meters),
                budget: budget.clone(),
                incarnation,
                access: access.clone(),
            }),
            flush: flush.clone(),
            directory: Arc::clone(&directory),
            sweep_context: Arc::new(SweepContext {
                env: env.clone(),
                log: Arc::clone(&log),
                store,
                layout,
                pins: pins.clone(),
                gate: sweep_gate,
                interval: settings.sweep_interval,
                grace: settings.delete_grace,
            }),
            sweep: sweep.clone(),
        };
        Ok(Self(Arc::new(Shared {
            budget,
            reading: ReadBudgets::for_cache_of(settings.block_cache_bytes),
            env,
            node,
            settings,
            log,
            watermarks,
            layout,
            access,
            contact: watch::Sender::default(),
            source,
            pins,
            hints: Hints::default(),
            meters,
            sweep,
            producers: ProducerIds::default(),
            directory,
            flush,
            registration,
            sessions: AtomicU64::new(0),
            proving: tokio::sync::Mutex::default(),
            role,
            supervised: Mutex::new(Supervised::start(role, household).await?),
        })))
    }

    /// Waits until the node is registered as a new incarnation, as often as it has to be. Cancel-safe.
    ///
    /// # Errors
    /// When it is refused for good, and on a reader, which is never registered.
    pub async fn registered(&self) -> Result<Incarnation, StartError> {
        let mut registration = self.0.registration.clone();
        loop {
            match &*registration.borrow_and_update() {
                Registration::Pending => {}
                Registration::Open(incarnation) => return Ok(*incarnation),
                Registration::Refused(refusal) => return Err(StartError::Refused(refusal.clone())),
            }
            if registration.changed().await.is_err() {
                return Err(StartError::Actor { reason: "the flush actor stopped".to_owned() });
            }
        }
    }

    /// The incarnation under which this node writes now; `None` while it is being registered anew.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        match &*self.0.registration.borrow() {
            Registration::Open(incarnation) => Some(*incarnation),
            Registration::Pending | Registration::Refused(_) => None,
        }
    }

    /// Waits until the node is refused for good, such as when it was removed from the cluster; never returns on a node
    /// that is not. Cancel-safe.
    pub async fn refused(&self) -> Arc<NotRegistered> {
        let mut registration = self.0.registration.clone();
        loop {
            if let Registration::Refused(refusal) = &*registration.borrow_and_update() {
                return Arc::clone(refusal);
            }
            if registration.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether it takes writes.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        self.0.role == Role::Broker
    }

    /// The metadata as applied here and now.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.log.state()
    }

    /// Looks at the metadata under its read lock, without copying it; `look` must be brief.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        crate::log::read(&*self.0.log, look)
    }

    /// The read token of this moment: a read on any node that presents it sees everything that was answered here.
    #[must_use]
    pub fn read_token(&self) -> LogIndex {
        crate::log::read(&*self.0.log, State::applied)
    }

    /// What died at or before this index is read by nobody on this node.
    #[must_use]
    pub fn pinned(&self) -> LogIndex {
        // Under the state's lock, as pins are taken under it: none can be taken at an older index in between.
        crate::log::read(&*self.0.log, |state| self.0.pins.free_up_to(state.applied()))
    }

    /// The metadata has closed `incarnation`: what was proposed under it may have happened, the node registers anew.
    /// Does nothing when it writes under a later one already.
    pub fn incarnation_closed(&self, incarnation: Incarnation) {
        self.0.flush.closed(incarnation);
    }

    /// The cluster does not want this node any more, for this reason: it is refused for good, and stores nothing more. A
    /// node that was taken out of the metadata log hears of it in no other way.
    pub fn expel(&self, reason: String) {
        self.0.flush.registered(Err(Arc::new(NotRegistered::Expelled { reason })));
    }

    /// How the writes of this node to the store have gone lately.
    #[must_use]
    pub fn store_writes(&self) -> WritesSeen {
        self.0.source.store().writes()
    }

    /// Makes one write that changes nothing, for [`store_writes`](Self::store_writes) to tell how it went. Takes at most
    /// `patience` where the store is remote. Cancel-safe.
    pub async fn prove_writes(&self, patience: Duration) {
        // One that hangs on a disk cannot be taken back, and further ones would hang beside it.
        let patience = if self.0.source.store().is_local() { LOCAL_PATIENCE } else { patience };
        let deadline = self.0.env.clock.now().saturating_add(patience);
        prove_writes(self.0.source.store(), &self.0.layout, deadline).await;
    }

    /// Whether a write to the store that is made now works; `true` without one where another has succeeded within `lately`,
    /// has failed, which [`store_writes`](Self::store_writes) tells, or where the store is a local disk: one that hangs
    /// would not let go. One at a time. Cancel-safe.
    pub async fn can_write(&self, lately: Duration, patience: Duration) -> bool {
        let _one = self.0.proving.lock().await;
        let WritesSeen { failing, succeeded } = self.store_writes();
        let known = failing.is_some() || succeeded.is_some_and(|ago| ago < lately);
        if known || self.0.source.store().is_local() {
            return true;
        }
        self.prove_writes(patience).await;
        self.store_writes().failing.is_none()
    }

    /// Whether the node tries to store what it is sent.
    #[must_use]
    pub fn store_access(&self) -> StoreAccess {
        *self.0.access.borrow()
    }

    /// Whether the node tries to store what it is sent, from now on; what waits for the store then does not happen.
    pub fn set_store_access(&self, access: StoreAccess) {
        self.0.access.send_if_modified(|current| std::mem::replace(current, access) != access);
    }

    /// Whether this node hears of a majority of the voters, as it changes. What it is given without waits.
    #[must_use]
    pub fn contact(&self) -> watch::Receiver<Contact> {
        self.0.contact.subscribe()
    }

    /// Tells whether this node hears of a majority.
    pub fn set_contact(&self, contact: Contact) {
        self.0.contact.send_if_modified(|current| std::mem::replace(current, contact) != contact);
    }

    /// Waits until this node is at least as new as `token`, at most `patience`. Cancel-safe.
    ///
    /// # Errors
    /// When it does not get there in time: another node may, and so may this one later.
    pub async fn reach(&self, token: LogIndex, patience: Duration) -> Result<(), ReadIndexError> {
        let deadline = self.0.env.clock.now().saturating_add(patience);
        if self.read_token() >= token || self.0.log.wait_applied(token, deadline).await {
            return Ok(());
        }
        let at = self.read_token();
        Err(ReadIndexError {
            reason: format!("the read token stands for entry {token}, this node is at {at}"),
        })
    }

    /// Waits until this node knows what the cluster knew when the call began. Cancel-safe.
    ///
    /// # Errors
    /// When no quorum confirms it in time.
    pub async fn confirm_current(&self) -> Result<(), ReadIndexError> {
        self.0.log.read_index().await.map(|_| ())
    }

    /// Tells when a partition changes; `None` once the node stops.
    #[must_use]
    pub fn subscribe(&self, partition: PartitionId) -> Option<Subscription> {
        let subscription = self.0.watermarks.subscribe(partition);
        (!self.0.watermarks.is_closed()).then_some(subscription)
    }

    /// The budget of bytes in flight. A listener takes its share before it reads a body.
    #[must_use]
    pub fn budget(&self) -> &ByteBudget {
        &self.0.budget
    }

    /// A new session whose client keeps at most `window` bytes unanswered; 0 when it waits for each answer.
    #[must_use]
    pub fn session(&self, window: u64) -> Session {
        Session::new(self.0.sessions.fetch_add(1, Ordering::Relaxed), window)
    }

    /// The limits that batches for this topic are parsed with; `None` when it does not exist here.
    #[must_use]
    pub fn topic_limits(&self, topic: TopicId) -> Option<BatchLimits> {
        let bytes = |state: &State| state.topic(topic).map(|topic| topic.settings().max_message_bytes);
        crate::log::read(&*self.0.log, bytes).map(BatchLimits::of_topic)
    }

    /// Hands a batch over. Completes in the order of the calls of a session, as soon as the batch has its share of
    /// the in-flight budget (waiting for it is the back-pressure); the answer comes when the batch is durable.
    ///
    /// Cancel-safe: a call that is dropped before it returns did nothing.
    ///
    /// # Errors
    /// When the batch is refused at the door. It did not happen.
    pub async fn append(&self, session: &Session, request: AppendRequest) -> Result<PendingAck, AppendError> {
        let AppendRequest { partition, batch, permit } = request;
        let load = Load { batches: vec![(partition, batch)], expected: Vec::new() };
        let permit = self.admit(&load, permit).await?;
        let (port, answer) = oneshot::channel();
        let now = self.0.env.clock.now();
        let waiter = Waiter::new(session, permit, Reply::Batch(port), &load, now);
        self.0.directory.append(partition, Entry { load, waiter }, now);
        Ok(PendingAck(answer))
    }

    /// Checks what can be checked at the door, and waits for a share of the in-flight budget.
    async fn admit(&self, load: &Load, permit: Option<BytePermit>) -> Result<BytePermit, AppendError> {
        if self.0.role == Role::Reader {
            return Err(AppendError::NotStored { obstacle: Obstacle::ReadOnly });
        }
        let look = |state: &State| admission::check(state, load);
        if let Err(error) = crate::log::read(&*self.0.log, look) {
            // A partition that is not known here may be known elsewhere.
            if self.0.log.read_index().await.is_err() {
                return Err(AppendError::NotStored { obstacle: Obstacle::Metadata });
            }
            crate::log::read(&*self.0.log, look).map_err(|_| error)?;
        }
        let begun = self.0.env.clock.now();
        let permit = match permit {
            Some(permit) => permit,
            None => self.0.budget.acquire(load.bytes()).await,
        };
        self.0.meters.queue.record(self.0.env.clock.now().saturating_sub(begun).as_secs_f64());
        Ok(permit)
    }

    /// Hands over batches that are appended wholly or not at all. Otherwise as [`Self::append`].
    ///
    /// # Errors
    /// When the unit is refused at the door. It did not happen.
    pub async fn append_unit(&self, session: &Session, unit: UnitAppend) -> Result<PendingUnit, AppendError> {
        let UnitAppend { batches, expected, permit } = unit;
        if batches.is_empty() {
            return Err(AppendError::BadUnit { fault: UnitFault::Empty });
        }
        let load = Load { batches, expected };
        let permit = self.admit(&load, permit).await?;
        let (port, answer) = oneshot::channel();
        let waiter = Waiter::new(session, permit, Reply::Unit(port), &load, self.0.env.clock.now());
        self.0.directory.append_unit(Entry { load, waiter });
        Ok(PendingUnit(answer))
    }

    /// Waits until the loop that stores batches comes round; `false` when it is being restarted. For watchdogs.
    /// Cancel-safe.
    pub async fn ping(&self) -> bool {
        self.0.flush.ping().await
    }

    /// A random id for a request whose caller gave none.
    #[must_use]
    pub fn fresh_request_id(&self) -> [u8; 16] {
        self.0.request_id(None)
    }

    /// Refuses new work, flushes, and waits until every batch is answered.
    pub async fn flush(&self) {
        if self.0.role == Role::Reader {
            return;
        }
        self.0.directory.close(self.0.env.clock.now()).await;
        self.0.flush.drain().await;
    }

    /// Stops in order: refuses new work, flushes, waits until every batch is answered, closes the incarnation so
    /// that nothing is left behind, stops the actors. Call it once no listener takes requests any more. An incarnation that
    /// the log has not taken the end of when `in_vain` completes is closed by the next start.
    pub async fn shutdown(&self, in_vain: impl Future<Output = ()>) {
        self.flush().await;
        self.0.watermarks.close();
        if let Some(incarnation) = self.incarnation() {
            // What is still undecided can then never be committed, so the next sweep finds it.
            let close = Command::CloseIncarnation { node: self.0.node, incarnation };
            let why = tokio::select! {
                mut closed = self.0.log.propose(vec![close]) => closed.pop().and_then(Result::err).map(|error| error.to_string()),
                // The last node of a cluster that is stopped finds no majority any more.
                () = in_vain => Some("nobody leads".to_owned()),
            };
            if let Some(why) = why {
                tracing::info!(why, "incarnation was not closed, the next start closes it");
            }
        }
        let supervised = self.0.supervised.lock().take();
        if let Some(supervised) = supervised {
            supervised.stop().await;
        }
    }
}
