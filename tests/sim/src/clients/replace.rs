//! An operator who removes a node for good, and lets a new one join in its place; also one that has lost its disk.

use tonic::Code;

use super::Client;
use super::operate::{Order, call, pause_under_load};
use crate::seed::Dice;
use crate::world::{Order as Machine, Site, Standing};

/// How often the removal of a node that is off is asked for, before it is started again: it may be the one that was needed.
const TRIES: u32 = 8;

/// Replaces the node of a place, drained or dead; gives up when the cluster says that it cannot do without.
pub(super) async fn replace(client: &Client, dice: &Dice, site: &Site) {
    // One that never came cannot go.
    if site.standing() != Standing::Wanted || !client.world.knows(site.id()) {
        return;
    }
    // Without the only voter there would be no cluster that could be asked.
    let is_dead = dice.one_in(2) && client.world.goes_on_without(site.id());
    if is_dead {
        order(client, site, Machine::Off).await;
        pause_under_load(client, dice.magnitude(100, 20_000)).await;
    } else {
        drop(call(client, dice, Order::Drain(site.id().get())).await);
        pause_under_load(client, dice.magnitude(100, 15_000)).await;
    }
    let is_removed = remove(client, dice, site, TRIES).await;
    // Also one that was removed comes back now and then, as its machine's supervisor does not know.
    if is_dead && (!is_removed || dice.one_in(2)) {
        order(client, site, Machine::On).await;
    }
    if is_removed {
        pause_under_load(client, dice.magnitude(1, 10_000)).await;
        order(client, site, Machine::Replace).await;
    } else {
        client.world.coverage.count("operator: a removal was not done");
        drop(call(client, dice, Order::Undrain(site.id().get())).await);
    }
}

/// A disk is lost, and its node is started as if nothing had been. Then it is replaced: there is no other way.
pub(super) async fn wipe(client: &Client, dice: &Dice, site: &Site) {
    if site.standing() != Standing::Wanted || !client.world.bears_a_lost_disk() {
        return;
    }
    order(client, site, Machine::Wipe).await;
    client.world.coverage.count("operator: Wipe");
    pause_under_load(client, dice.magnitude(500, 15_000)).await;
    while !remove(client, dice, site, TRIES).await {
        // Where all others are drained, none could take what is at home there.
        let other = dice.pick(&client.world.nodes).id();
        if other != site.id() {
            drop(call(client, dice, Order::Undrain(other.get())).await);
        }
        client.pause(dice.between(200, 1_000)).await;
    }
    order(client, site, Machine::Replace).await;
}

/// Brings removals to an end of which nobody knows whether they happened.
pub(super) async fn complete(client: &Client, dice: &Dice) {
    for site in &client.world.nodes {
        if site.standing() == Standing::Leaving && remove(client, dice, site, u32::MAX).await {
            order(client, site, Machine::Replace).await;
        }
    }
}

/// Asks for a removal; `false` when it is refused, or nobody has answered.
async fn remove(client: &Client, dice: &Dice, site: &Site, tries: u32) -> bool {
    let mut earlier = site.standing();
    site.stands(Standing::Leaving);
    for _ in 0..tries {
        match call(client, dice, Order::Remove(site.id().get())).await.map_err(|status| status.code()) {
            // Of an earlier request nobody heard that it was done.
            Ok(()) | Err(Code::NotFound) => {
                client.world.coverage.count("operator: Replace");
                site.stands(Standing::Removed);
                return true;
            }
            Err(Code::FailedPrecondition) => {
                site.stands(earlier);
                return false;
            }
            Err(_) => earlier = Standing::Leaving,
        }
        client.pause(dice.between(200, 1_000)).await;
    }
    false
}

/// Has something done with a machine, and waits until it is.
async fn order(client: &Client, site: &Site, order: Machine) {
    *site.order.lock() = Some(order);
    while site.order.lock().is_some() {
        client.pause(10).await;
    }
}
