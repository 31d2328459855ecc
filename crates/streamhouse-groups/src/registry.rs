//! Which groups this node has in memory, and what their coordinators share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use streamhouse_broker::Broker;
use streamhouse_broker::metadata::{FeatureLevel, State};
use streamhouse_env::Env;
use streamhouse_types::{GroupId, Incarnation, NodeId};
use tokio::sync::{Notify, mpsc};

use crate::admin::GroupState;
use crate::changes::Changes;
use crate::coordinator::{Coordinator, Msg};
use crate::{GroupSettings, JoinRequest};

/// Requests that wait for one coordinator; more wait to be taken.
const INBOX: usize = 256;

/// A coordinator at work, and where its requests go.
pub(crate) type AtWork = (Arc<Seat>, mpsc::Sender<Msg>);

/// What the coordinators of this node share.
pub(crate) struct Room {
    pub(crate) broker: Broker,
    pub(crate) env: Env,
    pub(crate) node: NodeId,
    pub(crate) settings: GroupSettings,
    pub(crate) changes: Changes,
    seats: Mutex<BTreeMap<GroupId, AtWork>>,
    /// No group is taken any more.
    draining: AtomicBool,
    /// This node cannot tell whether others have taken its groups.
    doubtful: AtomicBool,
}

/// What the outside and a coordinator tell each other besides requests.
#[derive(Debug)]
pub(crate) struct Seat {
    lost: Notify,
    hung_up: Notify,
    claimed: AtomicBool,
    state: Mutex<GroupState>,
}

impl Seat {
    fn new() -> Self {
        Self {
            lost: Notify::new(),
            hung_up: Notify::new(),
            claimed: AtomicBool::new(false),
            state: Mutex::new(GroupState::Empty),
        }
    }

    /// The group has another owner, or is to have one.
    pub(crate) fn lose(&self) {
        self.lost.notify_one();
    }

    /// Waits for [`Self::lose`]. Cancel-safe.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Somebody does not wait for an answer any more.
    pub(crate) fn hang_up(&self) {
        self.hung_up.notify_one();
    }

    /// Waits for [`Self::hang_up`]. Cancel-safe.
    pub(crate) async fn hung_up(&self) {
        self.hung_up.notified().await;
    }

    /// The group is this node's.
    pub(crate) fn claimed(&self) {
        self.claimed.store(true, Ordering::SeqCst);
    }

    /// Whether the group was claimed; before, nobody can have taken it away.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::SeqCst)
    }

    /// What the group is like now.
    pub(crate) fn show(&self, state: GroupState) {
        *self.state.lock() = state;
    }

    pub(crate) fn state(&self) -> GroupState {
        *self.state.lock()
    }
}

impl Room {
    pub(crate) fn new(broker: Broker, env: Env, node: NodeId, settings: GroupSettings) -> Self {
        let changes = Changes::start(broker.clone(), env.clone(), node);
        Self {
            broker,
            env,
            node,
            settings,
            changes,
            seats: Mutex::default(),
            draining: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
        }
    }

    /// As whom this node owns groups; `None` while it is not registered.
    pub(crate) fn owner(&self) -> Option<(NodeId, Incarnation)> {
        self.broker.incarnation().map(|incarnation| (self.node, incarnation))
    }

    /// Whether all nodes know groups. From then on they do.
    pub(crate) fn knows_groups(&self) -> bool {
        self.broker.look(State::feature_level) >= FeatureLevel::GROUPS
    }

    /// The coordinator of a group, at work from now on; `None` when the node stops.
    pub(crate) fn open(self: &Arc<Self>, group: &GroupId) -> Option<AtWork> {
        let mut seats = self.seats.lock();
        if let Some((seat, inbox)) = seats.get(group).filter(|(_, inbox)| !inbox.is_closed()) {
            return Some((Arc::clone(seat), inbox.clone()));
        }
        // Under the lock: who drains the node sees the seat or is seen here.
        if self.is_draining() {
            return None;
        }
        let (sender, inbox) = mpsc::channel(INBOX);
        let seat = Arc::new(Seat::new());
        seats.insert(group.clone(), (Arc::clone(&seat), sender.clone()));
        let coordinator = Coordinator::new(group.clone(), Arc::clone(self), Arc::clone(&seat), inbox);
        tokio::spawn(coordinator.run());
        Some((seat, sender))
    }

    /// The coordinator of a group, when it is at work here.
    pub(crate) fn at_work(&self, group: &GroupId) -> Option<AtWork> {
        let seats = self.seats.lock();
        let found = seats.get(group).filter(|(_, inbox)| !inbox.is_closed());
        found.map(|(seat, inbox)| (Arc::clone(seat), inbox.clone()))
    }

    /// All coordinators at work here.
    pub(crate) fn all_at_work(&self) -> Vec<(GroupId, Arc<Seat>)> {
        let seats = self.seats.lock();
        seats.iter().map(|(group, (seat, _))| (group.clone(), Arc::clone(seat))).collect()
    }

    /// A coordinator ends.
    pub(crate) fn leave(&self, group: &GroupId, seat: &Arc<Seat>) {
        let mut seats = self.seats.lock();
        if seats.get(group).is_some_and(|(current, _)| Arc::ptr_eq(current, seat)) {
            seats.remove(group);
        }
    }

    /// No group is taken from now on, and those that are here end.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.all_at_work().into_iter().for_each(|(_, seat)| seat.lose());
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Others may have taken this node's groups without its knowledge.
    pub(crate) fn doubt(&self) {
        self.doubtful.store(true, Ordering::SeqCst);
    }

    /// What this node knows is what the cluster knows.
    pub(crate) fn trust(&self) {
        self.doubtful.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::SeqCst)
    }

    /// An id that no member has had: it begins with what people know the member by.
    pub(crate) fn fresh_member_id(&self, request: &JoinRequest) -> String {
        /// Longer names are cut: they are the client's to choose, and memory is this node's.
        const NAME_MAX: usize = 255;
        let name = request.instance.as_deref().unwrap_or(&request.client);
        let end = (0..=name.len().min(NAME_MAX)).rev().find(|end| name.is_char_boundary(*end));
        let mut random = [0; 16];
        self.env.rng.fill(&mut random);
        format!("{}-{:032x}", &name[..end.unwrap_or(0)], u128::from_be_bytes(random))
    }
}
