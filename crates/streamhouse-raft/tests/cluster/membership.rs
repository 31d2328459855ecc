//! Who belongs to the cluster, where it is, and who leads.

use std::time::Duration;

use streamhouse_raft::{MembershipError, RaftMember};
use streamhouse_types::{LogIndex, NodeId};

use crate::nodes::{Cluster, PATIENCE, calm, eventually, topic_count};

const FOUR: NodeId = NodeId::new(4);

fn voters(members: &[RaftMember]) -> Vec<u64> {
    members.iter().filter(|member| member.is_voter).map(|member| member.node.get()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_grows_to_three() {
    let cluster = Cluster::started(3, calm()).await;
    let [one, two, three] = [1, 2, 3].map(NodeId::new);
    cluster.node(one).bootstrap_single(&cluster.address(one)).await.expect("a cluster of one");
    cluster.prepare().await;
    cluster.create("alone").await;
    for id in [two, three] {
        cluster.node(one).add_learner(id, &cluster.address(id)).await.expect("learns");
        eventually("the learner to catch up", || async {
            cluster.node(one).learner_caught_up(id).then_some(())
        })
        .await;
    }
    assert_eq!(voters(&cluster.node(one).members()), [1]);
    cluster.node(one).set_voters([one, two, three]).await.expect("three voters");
    cluster.create("together").await;
    cluster.assert_agreement().await;
    assert_eq!(topic_count(cluster.node(three)), 2);
    eventually("the last one to see all voters", || async {
        (voters(&cluster.node(three).members()) == [1, 2, 3]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_takes_the_place_of_a_voter_that_goes() {
    let mut cluster = Cluster::ready(calm()).await;
    let (leader, others) = cluster.roles().await;
    let gone = others[0];
    cluster.start(FOUR).await;
    let node = cluster.node(leader);
    node.add_learner(FOUR, &cluster.address(FOUR)).await.expect("learns");
    node.add_learner(FOUR, &cluster.address(FOUR)).await.expect("asked twice is as asked once");
    eventually("the learner to catch up", || async { node.learner_caught_up(FOUR).then_some(()) }).await;
    assert!(!node.members().iter().any(|member| member.node == FOUR && member.is_voter));

    let refused = node.remove_member(gone).await.expect_err("two voters would be left");
    assert_eq!(refused, MembershipError::EvenVoters { voters: 2 });
    node.set_voters([leader, others[1], FOUR]).await.expect("another voter");
    node.remove_member(gone).await.expect("a learner now");
    node.remove_member(gone).await.expect("asked twice is as asked once");
    assert!(!node.members().iter().any(|member| member.node == gone));
    cluster.stop(gone).await;
    cluster.create("after").await;
    cluster.assert_agreement().await;
    assert_eq!(topic_count(cluster.node(FOUR)), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_nobody_saw_to_its_end_is_ended_when_the_same_voters_are_set_again() {
    let mut cluster = Cluster::started(3, calm()).await;
    let all @ [one, two, three] = [1, 2, 3].map(NodeId::new);
    cluster.node(one).bootstrap_single(&cluster.address(one)).await.expect("a cluster of one");
    cluster.prepare().await;
    for id in [two, three] {
        cluster.node(one).add_learner(id, &cluster.address(id)).await.expect("learns");
        cluster.stop(id).await;
    }
    assert_eq!(cluster.node(one).unfinished_voters(), None);
    let node = cluster.node(one);
    let begun = eventually("the change to be begun", || async { node.unfinished_voters() });
    tokio::select! {
        done = node.set_voters(all) => panic!("nobody else can agree: {done:?}"),
        goal = begun => assert_eq!(goal, all.into()),
    }
    for id in [two, three] {
        cluster.start(id).await;
    }
    cluster.create("between").await;
    let node = cluster.node(one);
    assert_eq!(voters(&node.members()), [1, 2, 3], "as if it were done");
    assert_eq!(node.unfinished_voters(), Some(all.into()));
    node.set_voters(all).await.expect("the second half");
    assert_eq!(node.unfinished_voters(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_do_harm_is_refused() {
    let cluster = Cluster::ready(calm()).await;
    let (leader, others) = cluster.roles().await;
    let (node, follower) = (cluster.node(leader), cluster.node(others[0]));
    let refused = node.set_voters([leader, others[0]]).await;
    assert_eq!(refused, Err(MembershipError::EvenVoters { voters: 2 }));
    assert_eq!(node.set_voters([]).await, Err(MembershipError::NoVoters));
    let stranger = NodeId::new(9);
    let refused = node.set_voters([leader, others[0], stranger]).await;
    assert_eq!(refused, Err(MembershipError::NotMember { node: stranger }));
    let refused = node.set_address(stranger, "127.0.0.1:1").await;
    assert_eq!(refused, Err(MembershipError::NotMember { node: stranger }));
    assert_eq!(node.transfer_leader(stranger).await, Err(MembershipError::NotVoter { node: stranger }));
    let elsewhere = Err(MembershipError::NotLeader { leader: Some(leader) });
    assert_eq!(follower.set_voters([leader]).await, elsewhere);
    assert_eq!(follower.add_learner(stranger, "127.0.0.1:1").await, elsewhere);
    assert_eq!(follower.remove_member(leader).await, elsewhere);
    assert_eq!(follower.transfer_leader(others[0]).await, elsewhere);
    let fresh = Cluster::started(2, calm()).await;
    let both = fresh.ids().into_iter().map(|id| (id, fresh.address(id))).collect();
    let refused = fresh.node(NodeId::new(1)).bootstrap(both).await;
    assert_eq!(refused, Err(MembershipError::EvenVoters { voters: 2 }));
    assert!(!fresh.node(NodeId::new(1)).has_cluster().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moved_is_found_at_its_new_address() {
    let mut cluster = Cluster::ready(calm()).await;
    let (leader, others) = cluster.roles().await;
    let moved = others[0];
    let term = cluster.node(leader).term();
    cluster.stop(moved).await;
    cluster.create("meanwhile").await;
    cluster.start_at(moved, ([127, 0, 0, 1], 0).into()).await;
    let node = cluster.node(leader);
    node.set_address(moved, &cluster.address(moved)).await.expect("it is a member");
    cluster.assert_agreement().await;
    assert_eq!(topic_count(cluster.node(moved)), 1);
    eventually("the node to know where it is", || async {
        let known = cluster.node(moved).members();
        known.iter().any(|member| member.address == cluster.address(moved)).then_some(())
    })
    .await;
    assert_eq!(cluster.node(leader).term(), term, "the same leader found it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_and_status_tell_what_each_node_knows() {
    let cluster = Cluster::ready(calm()).await;
    let (old, others) = cluster.roles().await;
    let status = cluster.node(old).status();
    assert_eq!((status.node, status.leader, status.members.len()), (old, Some(old), 3));
    eventually("all members to match", || async {
        let status = cluster.node(old).status();
        let complete = |member: &streamhouse_raft::RaftMemberStatus| {
            member.matched == Some(status.last_log)
                && member.last_contact.is_some_and(|ago| ago < Duration::from_secs(10))
        };
        (status.members.iter().all(complete) && status.committed == Some(status.last_log)).then_some(())
    })
    .await;
    let seen = cluster.node(others[0]).status();
    assert!(seen.members.iter().all(|member| member.matched.is_none() && member.last_contact.is_none()));
    assert!(seen.applied > LogIndex::ZERO && seen.leader == Some(old));

    let target = others[0];
    let mut leadership = cluster.node(others[1]).leadership();
    let before = leadership.borrow_and_update().clone();
    assert_eq!(before.leader, Some((old, cluster.address(old))));
    eventually("the target to be close enough", || async {
        cluster.node(old).transfer_leader(target).await.ok()
    })
    .await;
    let after = leadership.wait_for(|now| now.leader.as_ref().is_some_and(|(node, _)| *node == target));
    let after = tokio::time::timeout(PATIENCE, after).await.expect("a new leader").expect("runs").clone();
    assert_eq!(after.leader, Some((target, cluster.address(target))));
    assert!(after.term > before.term && !after.leads);
    let mut own = cluster.node(target).leadership();
    let leads = tokio::time::timeout(PATIENCE, own.wait_for(|now| now.leads)).await;
    leads.expect("it knows that it leads").expect("runs");
}
