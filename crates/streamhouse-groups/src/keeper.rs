//! What is looked after besides requests: groups that have gone elsewhere end here, those whose members were left behind
//! begin here, and the metrics are told.

use std::sync::{Arc, Weak};
use std::time::Duration;

use streamhouse_broker::metadata::State;
use streamhouse_types::GroupId;

use crate::metrics::Told;
use crate::placement::coordinator;
use crate::registry::Room;

/// How often a node makes sure that its groups are still its own.
const LOOK: Duration = Duration::from_secs(1);
/// A node that could not make sure for so long answers no members any more: others may answer them.
const DOUBT: Duration = Duration::from_secs(10);
/// How often the metrics are told, in looks.
const TELL: u32 = 10;

/// Starts the task; it ends with the room.
pub(crate) fn start(room: &Arc<Room>) {
    let (clock, weak) = (Arc::clone(&room.env.clock), Arc::downgrade(room));
    tokio::spawn(async move {
        let (mut told, mut looks) = (Told::default(), 0_u32);
        let mut sure = clock.now();
        loop {
            clock.sleep(LOOK).await;
            let Some(room) = open(&weak) else { return };
            look(&room, &mut sure).await;
            adopt(&room).await;
            if looks % TELL == 0 {
                told.tell(&room.broker.state(), room.node, room.env.clock.wall());
            }
            looks = looks.wrapping_add(1);
        }
    });
}

fn open(room: &Weak<Room>) -> Option<Arc<Room>> {
    room.upgrade().filter(|room| !room.is_draining())
}

/// Ends the groups that are somebody else's.
async fn look(room: &Room, sure: &mut Duration) {
    let at_work = room.all_at_work();
    let now = room.env.clock.now();
    if at_work.is_empty() || room.broker.confirm_current().await.is_ok() {
        *sure = now;
        room.trust();
    } else if room.env.clock.now().saturating_sub(*sure) > DOUBT {
        room.doubt();
    }
    let owner = room.owner();
    for (id, seat) in at_work {
        let own = |state: &State| {
            let owned = !seat.is_claimed()
                || (owner.is_some() && state.group(&id).is_some_and(|group| group.owner() == owner));
            owned && coordinator(state, &id) == Some(room.node)
        };
        if !room.broker.look(own) {
            tracing::debug!(group = %id, "group is coordinated elsewhere");
            seat.lose();
        }
    }
}

/// Takes groups over whose members have lost their coordinator: those that do not ask for it are silent, and only a
/// coordinator finds that out. Without one they would keep the group from being moved, deleted and forgotten.
async fn adopt(room: &Arc<Room>) {
    // What an old state says of this node's groups is no reason to take them from others.
    if left_behind(room).is_empty() || room.broker.confirm_current().await.is_err() {
        return;
    }
    for group in left_behind(room) {
        room.open(&group);
    }
}

/// Groups that this node is to coordinate, that have members, and that it does not coordinate.
fn left_behind(room: &Room) -> Vec<GroupId> {
    let own = |state: &State| -> Vec<GroupId> {
        let populated = state.groups().filter(|(_, group)| group.has_members());
        let own = populated.filter(|(id, _)| coordinator(state, id) == Some(room.node));
        own.map(|(id, _)| id.clone()).collect()
    };
    let own = room.broker.look(own);
    own.into_iter().filter(|id| room.at_work(id).is_none()).collect()
}
