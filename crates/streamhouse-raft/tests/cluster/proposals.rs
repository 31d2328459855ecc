//! Commands that are proposed on a node that does not lead.

use std::sync::Arc;
use std::time::Duration;

use streamhouse_metadata::{Command, Outcome, State};
use streamhouse_raft::{LeaderCommands, ProposeError, RaftNode, RaftSettings};
use streamhouse_types::TopicId;

use crate::nodes::{Cluster, PATIENCE, create, eventually, has_topic, settings};

fn created(answer: Result<Outcome, ProposeError>) -> TopicId {
    match answer {
        Ok(Outcome::TopicCreated { topic }) => topic,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_commands_are_committed_in_their_order_and_applied_there() {
    let cluster = Cluster::ready(settings()).await;
    let (_, followers) = cluster.roles().await;
    for (round, follower) in followers.into_iter().enumerate() {
        let node = cluster.node(follower);
        let names: Vec<_> = (0..20).map(|topic| format!("t-{round}-{topic}")).collect();
        let answers = node.propose(names.iter().map(|name| create(name)).collect()).await;
        let ids: Vec<_> = answers.into_iter().map(created).collect();
        assert!(ids.len() == 20 && ids.is_sorted(), "{ids:?}");
        for (name, id) in names.iter().zip(ids) {
            let state = node.state();
            let topic = state.topic_by_name(&name.parse().expect("a name")).expect("applied here");
            assert_eq!(topic.id(), id, "each answer is of its command");
        }
    }
    cluster.assert_agreement().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_command_brings_along_what_is_due_on_the_leader() {
    struct Ticks;
    impl LeaderCommands for Ticks {
        fn due(&self, state: &State) -> Vec<Command> {
            vec![Command::Tick { now: state.cluster_time().plus_millis(1) }]
        }
    }
    let mut cluster = Cluster::ready(settings()).await;
    cluster.restart_with(Arc::new(Ticks)).await;
    let (_, followers) = cluster.roles().await;
    cluster.assert_agreement().await;
    let node = cluster.node(followers[0]);
    let time = node.state().cluster_time();
    let answers = node.propose(vec![create("a"), create("b")]).await;
    assert_eq!(answers.into_iter().map(created).count(), 2);
    assert_eq!(node.state().cluster_time(), time.plus_millis(1));
}

/// Proposes one topic after the other until `enough`; gives what became of each.
async fn keep_proposing(
    node: RaftNode,
    prefix: &'static str,
    mut enough: tokio::sync::oneshot::Receiver<()>,
) -> Vec<(String, Result<TopicId, ProposeError>)> {
    let mut fates = Vec::new();
    while enough.try_recv().is_err() {
        let name = format!("{prefix}-{}", fates.len());
        let answer = node.propose(vec![create(&name)]).await.remove(0);
        fates.push((name, answer.map(|outcome| created(Ok(outcome)))));
    }
    fates
}

fn assert_true(node: &RaftNode, fates: &[(String, Result<TopicId, ProposeError>)]) {
    for (name, fate) in fates {
        let state = node.state();
        let found = state.topic_by_name(&name.parse().expect("a name")).map(|topic| topic.id());
        match fate {
            Ok(topic) => assert_eq!(found, Some(*topic), "{name} was answered"),
            Err(ProposeError::NotHappened { .. }) => assert_eq!(found, None, "{name} had not happened"),
            Err(ProposeError::Unknown) => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_proposals_outlive_the_leader_and_are_answered_truly() {
    let mut cluster = Cluster::ready(settings()).await;
    for round in ["first", "second", "third"] {
        let (leader, followers) = cluster.roles().await;
        let (stop, enough) = tokio::sync::oneshot::channel();
        let proposer = cluster.node(followers[0]).clone();
        let proposing = tokio::spawn(keep_proposing(proposer.clone(), round, enough));
        eventually("the first topic", || async { has_topic(&proposer, &format!("{round}-0")).then_some(()) })
            .await;
        // First it falls silent in the middle of its work, then it is gone.
        cluster.isolate(leader).await;
        cluster.stop(leader).await;
        cluster.rejoin(leader).await;
        cluster.create(&format!("{round}-later")).await;
        stop.send(()).expect("it proposes");
        let fates = tokio::time::timeout(PATIENCE, proposing).await.expect("answered").expect("no panic");
        cluster.start(leader).await;
        cluster.assert_agreement().await;
        assert!(fates.iter().any(|(_, fate)| fate.is_ok()));
        assert_true(cluster.node(leader), &fates);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_of_the_leader_loses_no_proposal() {
    let cluster =
        Cluster::ready(RaftSettings { propose_timeout: Duration::from_secs(10), ..settings() }).await;
    let mut proposing = Vec::new();
    for (id, prefix) in cluster.ids().into_iter().zip(["one", "two", "three"]) {
        let (stop, enough) = tokio::sync::oneshot::channel();
        proposing.push((stop, tokio::spawn(keep_proposing(cluster.node(id).clone(), prefix, enough))));
    }
    for _ in 0..3 {
        let (leader, followers) = cluster.roles().await;
        eventually("a follower that is close enough", || async {
            cluster.node(leader).transfer_leader(followers[0]).await.ok()
        })
        .await;
        eventually("another leader", || async { (!cluster.node(leader).is_leader()).then_some(()) }).await;
    }
    for (stop, proposing) in proposing {
        stop.send(()).expect("it proposes");
        let fates = tokio::time::timeout(PATIENCE, proposing).await.expect("answered").expect("no panic");
        assert_true(cluster.leader().await, &fates);
        let refused = |fate: &Result<_, _>| matches!(fate, Err(ProposeError::NotHappened { .. }));
        assert!(!fates.iter().any(|(_, fate)| refused(fate)), "a new leader took none: {fates:?}");
    }
    cluster.assert_agreement().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_old_leader_had_begun_is_never_said_not_to_have_happened() {
    let cluster = Cluster::ready(settings()).await;
    let mut round = 0;
    eventually("a command that an old leader had begun", || {
        round += 1;
        let name = format!("contested-{round}");
        let cluster = &cluster;
        async move {
            let (old, others) = cluster.roles().await;
            // It hears one follower, and nobody else hears it.
            for other in &others {
                cluster.stall(old, *other).await;
            }
            cluster.stall(others[1], old).await;
            let before = cluster.node(old).status();
            let answer = cluster.node(others[0]).propose(vec![create(&name)]).await.remove(0);
            let appended = {
                let now = cluster.node(old).status();
                now.term == before.term && now.last_log > before.last_log
            };
            for other in &others {
                cluster.resume(old, *other).await;
            }
            cluster.resume(others[1], old).await;
            cluster.assert_agreement().await;
            match answer {
                Ok(_) => assert!(has_topic(cluster.node(old), &name)),
                Err(ProposeError::NotHappened { .. }) => {
                    assert!(!appended && !has_topic(cluster.node(old), &name));
                }
                Err(ProposeError::Unknown) => return appended.then_some(()),
                Err(error) => panic!("{error}"),
            }
            None
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cut_off_leader_had_appended_is_unknown_to_its_own_caller() {
    let cluster = Cluster::ready(settings()).await;
    let mut round = 0;
    eventually("a command that a cut-off leader had appended", || {
        round += 1;
        let (lost, won) = (format!("lost-{round}"), format!("won-{round}"));
        let cluster = &cluster;
        async move {
            let (old, others) = cluster.roles().await;
            cluster.isolate(old).await;
            let node = cluster.node(old);
            let before = node.status().last_log;
            let proposing = tokio::spawn({
                let (node, command) = (node.clone(), create(&lost));
                async move { node.propose(vec![command]).await.remove(0) }
            });
            let appended = eventually("the command to be taken or refused", || async {
                let appended = node.status().last_log > before;
                (appended || proposing.is_finished()).then_some(appended)
            })
            .await;
            // Others commit something else in its place.
            eventually("a commit without it", || async {
                cluster.node(others[0]).propose(vec![create(&won)]).await.remove(0).ok()
            })
            .await;
            cluster.rejoin(old).await;
            let answer =
                tokio::time::timeout(PATIENCE, proposing).await.expect("answered").expect("no panic");
            cluster.assert_agreement().await;
            match answer {
                Ok(_) => assert!(has_topic(node, &lost)),
                Err(ProposeError::NotHappened { .. }) => assert!(!appended && !has_topic(node, &lost)),
                Err(ProposeError::Unknown) => return appended.then_some(()),
                Err(error) => panic!("{error}"),
            }
            None
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_a_leader_says_that_nothing_happened() {
    let settings = RaftSettings { propose_timeout: Duration::from_millis(500), ..settings() };
    let mut cluster = Cluster::ready(settings).await;
    let (leader, followers) = cluster.roles().await;
    cluster.stop(leader).await;
    cluster.stop(followers[1]).await;
    let alone = cluster.node(followers[0]);
    eventually("the follower to give the leader up", || async {
        match alone.propose(vec![create("lonely")]).await.remove(0) {
            Err(ProposeError::NotHappened { .. }) => Some(()),
            Err(ProposeError::Unknown) => None,
            other => panic!("nobody could commit {other:?}"),
        }
    })
    .await;
    assert!(!has_topic(alone, "lonely"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_lost_its_majority_takes_nothing_any_more() {
    let settings = RaftSettings { commit_timeout: Duration::from_secs(1), ..settings() };
    let mut cluster = Cluster::ready(settings).await;
    let (leader, followers) = cluster.roles().await;
    for follower in &followers {
        cluster.stop(*follower).await;
    }
    let alone = cluster.node(leader).clone();
    // What it took before it could know may still be committed.
    let mut tries = 0;
    eventually("a refusal", || {
        tries += 1;
        let (alone, name) = (alone.clone(), format!("never-{tries}"));
        async move {
            let before = alone.status().last_log;
            let answer = alone.propose(vec![create(&name)]).await.remove(0);
            let refused = matches!(answer, Err(ProposeError::NotHappened { .. }));
            refused.then(|| assert_eq!(alone.status().last_log, before, "nothing of it is in the log"))
        }
    })
    .await;
    assert!(alone.read_index().await.is_err(), "nor is anything known to be current");
    for follower in followers {
        cluster.start(follower).await;
    }
    cluster.create("again").await;
    cluster.assert_agreement().await;
}
