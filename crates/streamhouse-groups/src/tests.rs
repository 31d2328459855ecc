//! Coordinators and the way into the log, over the real metadata. Time is paused: it goes on when everybody waits.

use std::time::Duration;

use futures::FutureExt as _;
use streamhouse_broker::metadata::{
    ChangeGroups, Command, Committer, Drain, GroupChange, GroupPhase, OffsetCommit,
};
use streamhouse_broker::{MetadataLog as _, Mode};
use streamhouse_types::error_code::ErrorCode;
use streamhouse_types::{Offset, PartitionId, PartitionIndex, TopicId};

use crate::testing::{Fault, Rig, beats, commits, joins, syncs, who};
use crate::{
    CommitRequest, GroupAdminError, GroupError, GroupObstacle, GroupState, JoinRequest, LeaveRequest, Leaver,
    MemberRef, Newcomers, OffsetRefusal,
};

/// Time passes, second by second.
async fn pass(seconds: u64) {
    for _ in 0..seconds * 4 {
        tokio::time::advance(Duration::from_millis(250)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn members_join_sync_commit_and_read_what_they_committed() {
    let rig = Rig::start().await;
    let (node, group) = (&rig.nodes[0], rig.group_of(0));
    let must = JoinRequest { newcomers: Newcomers::MustReturn, ..joins(&group, "") };
    let Err(GroupError::MemberIdRequired { member }) = node.groups.join(must.clone()).await else {
        panic!("an id comes first")
    };
    assert!(member.starts_with("client-"), "{member}");
    let first = node.groups.join(JoinRequest { member, ..must });
    let second = node.groups.join(joins(&group, ""));
    let (first, second) = tokio::join!(first, second);
    let (first, second) = (first.expect("joined"), second.expect("joined"));
    assert_eq!((first.generation, second.generation, second.leader.clone()), (1, 1, first.member.clone()));
    assert_eq!(rig.record(&group).phase, GroupPhase::Completing);
    let waits = node.groups.sync(syncs(&group, &second, &[]));
    let leads = node.groups.sync(syncs(&group, &first, &[(&first.member, "a"), (&second.member, "b")]));
    let (waits, leads) = tokio::join!(waits, leads);
    assert_eq!(
        (leads.expect("synced").assignment, waits.expect("synced").assignment),
        ("a".into(), "b".into())
    );
    assert_eq!(rig.record(&group).phase, GroupPhase::Stable);
    assert_eq!(node.groups.heartbeat(beats(&group, &second)).await, Ok(()));

    let answers = node.groups.commit(commits(&group, who(&second), rig.partition(1), 7)).await;
    assert_eq!(answers, Ok(vec![Ok(())]));
    let wanted = vec![rig.partition(1), rig.partition(0)];
    let offsets = node.groups.offsets(&group, Some(wanted)).await.expect("offsets");
    let offsets: Vec<Option<u64>> =
        offsets.into_iter().map(|(_, offset)| offset.map(|offset| offset.offset.get())).collect();
    assert_eq!(offsets, [Some(7), None]);
    let lag = node.groups.lag(&group).await.expect("a group");
    assert_eq!((lag.len(), lag[0].records), (1, 0));
    let described = node.groups.describe(&group).await.expect("a group").status;
    assert_eq!((described.state, described.members.len()), (GroupState::Stable, 2));
}

#[tokio::test(start_paused = true)]
async fn only_the_coordinator_answers_members() {
    let rig = Rig::start().await;
    let (group, coordinator) = (rig.group_of(0), rig.nodes[0].groups.node());
    let other = &rig.nodes[1].groups;
    let elsewhere = GroupError::NotCoordinator { coordinator: Some(coordinator) };
    assert_eq!(other.join(joins(&group, "")).await, Err(elsewhere.clone()));
    assert_eq!(other.offsets(&group, None).await, Err(elsewhere.clone()));
    let outside = commits(&group, MemberRef::default(), rig.partition(0), 1);
    assert_eq!(other.commit(outside).await, Err(elsewhere));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_joined_has_no_members_and_is_not_made() {
    let rig = Rig::start().await;
    let (node, group) = (&rig.nodes[0].groups, rig.group_of(0));
    let member = MemberRef { id: "m".to_owned(), instance: None, generation: Some(1) };
    let beat = crate::HeartbeatRequest { group: group.clone(), member: member.clone() };
    assert_eq!(node.heartbeat(beat).await, Err(GroupError::UnknownMember));
    let commit = node.commit(commits(&group, member, rig.partition(0), 1)).await;
    assert_eq!(commit, Err(GroupError::IllegalGeneration));
    let leaver = Leaver { id: "m".to_owned(), instance: None };
    let left = node.leave(LeaveRequest { group: group.clone(), members: vec![leaver] }).await;
    assert_eq!(left, Ok(vec![Err(GroupError::UnknownMember)]));
    assert_eq!(node.offsets(&group, None).await, Ok(Vec::new()));
    assert!(matches!(node.describe(&group).await, Err(GroupAdminError::NotFound { .. })));
    assert!(rig.log.state().group(&group).is_none());
}

#[tokio::test(start_paused = true)]
async fn groups_wait_until_all_nodes_know_them() {
    let rig = Rig::without_groups().await;
    let (group, groups) = (rig.group_of(0), &rig.nodes[0].groups);
    let before = rig.log.state().applied();
    let not_yet = GroupError::Unavailable { obstacle: GroupObstacle::Feature };
    assert_eq!(groups.join(joins(&group, "")).await, Err(not_yet.clone()));
    let is_not_yet =
        |error: GroupAdminError| matches!(error, GroupAdminError::Group(error) if error == not_yet);
    assert!(groups.delete(&group, None).await.is_err_and(is_not_yet));
    let sought = vec![(rig.partition(0), None)];
    assert!(groups.seek(&group, sought, None, streamhouse_broker::Mode::Apply).await.is_err_and(is_not_yet));
    // Nothing of it came into the log, at which a node of the release before would stop.
    assert_eq!(rig.log.state().applied(), before);
}

#[tokio::test(start_paused = true)]
async fn a_stable_group_survives_the_move_of_its_coordinator_without_a_rebalance() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    rig.drain(0, Drain::Operator);
    let other = rig.nodes[1].groups.node();
    let moved = rig.nodes[0].groups.heartbeat(beats(&group, &joined)).await;
    assert_eq!(moved, Err(GroupError::NotCoordinator { coordinator: Some(other) }));
    assert_eq!(rig.nodes[1].groups.heartbeat(beats(&group, &joined)).await, Ok(()));
    let commit = commits(&group, who(&joined), rig.partition(0), 3);
    assert_eq!(rig.nodes[1].groups.commit(commit).await, Ok(vec![Ok(())]));
    assert_eq!(rig.record(&group).generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_moves_before_its_assignment_goes_on_waiting_for_the_leader() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].groups.join(joins(&group, "")).await.expect("joined");
    rig.drain(0, Drain::Operator);
    assert_eq!(rig.record(&group).phase, GroupPhase::Completing);
    let synced = rig.nodes[1].groups.sync(syncs(&group, &joined, &[(&joined.member, "x")])).await;
    assert_eq!(synced.expect("synced").assignment, "x");
    assert_eq!((rig.record(&group).generation, rig.record(&group).phase), (1, GroupPhase::Stable));
}

#[tokio::test(start_paused = true)]
async fn members_that_go_silent_with_their_coordinator_are_found_gone_by_the_next_one() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    rig.nodes[0].lone_member(&group).await;
    rig.drain(0, Drain::Operator);
    // Nobody asks the other node for anything.
    pass(4).await;
    assert_eq!(rig.record(&group).members.len(), 1, "it has its whole session again");
    pass(6).await;
    assert_eq!(rig.record(&group).phase, GroupPhase::Empty);
    assert_eq!(rig.nodes[1].groups.delete(&group, None).await.map_err(|error| error.code()), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_at_a_node_that_lost_the_group_are_sent_away() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    // The other one does not join, so this one waits.
    let groups = rig.nodes[0].groups.clone();
    let newcomer = tokio::spawn({
        let request = joins(&group, "");
        async move { groups.join(request).await }
    });
    while rig.nodes[0].groups.describe(&group).await.expect("a group").status.state != GroupState::Preparing {
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    rig.drain(0, Drain::Operator);
    let other = rig.nodes[1].groups.node();
    let sent_away = newcomer.await.expect("no panic");
    assert_eq!(sent_away, Err(GroupError::NotCoordinator { coordinator: Some(other) }));
    assert_eq!(rig.nodes[1].groups.heartbeat(beats(&group, &joined)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_both_think_they_coordinate_only_the_owner_changes_the_group() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    // The other node claims the group behind the back of the first, which still looks after it.
    let (node, incarnation) = (rig.nodes[1].groups.node(), rig.nodes[1].broker.incarnation().expect("open"));
    let claim = GroupChange::Claim { group: group.clone() };
    let commit = GroupChange::Commit {
        group: group.clone(),
        by: Committer::Member { generation: 1 },
        offsets: commits(&group, who(&joined), rig.partition(0), 9).offsets,
    };
    rig.nodes[0].log.hold();
    let late = rig.nodes[0].groups.commit(commits(&group, who(&joined), rig.partition(0), 4));
    let mut late = Box::pin(late);
    assert!((&mut late).now_or_never().is_none());
    let is_commit = |change: &GroupChange| matches!(change, GroupChange::Commit { .. });
    let proposed = |command: &Command| match command {
        Command::ChangeGroups(changes) => changes.changes.iter().any(is_commit),
        _ => false,
    };
    while !rig.nodes[0].log.proposals.lock().iter().any(proposed) {
        assert!((&mut late).now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let changes = vec![claim, commit];
    rig.apply(Command::ChangeGroups(ChangeGroups { node, incarnation, sequence: 1, changes }));
    rig.drain(0, Drain::Operator);
    rig.nodes[0].log.release();
    assert_eq!(late.await, Err(GroupError::NotCoordinator { coordinator: Some(node) }));
    assert_eq!(rig.committed(&group), Some(9), "the commit of the node that lost the group is not taken");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_still_meant_to_coordinate_takes_a_group_back_and_asks_again() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    let (node, incarnation) = (rig.nodes[1].groups.node(), rig.nodes[1].broker.incarnation().expect("open"));
    let changes = vec![GroupChange::Claim { group: group.clone() }];
    rig.apply(Command::ChangeGroups(ChangeGroups { node, incarnation, sequence: 1, changes }));
    let commit = rig.nodes[0].groups.commit(commits(&group, who(&joined), rig.partition(0), 4)).await;
    assert_eq!(commit, Ok(vec![Ok(())]));
    assert_eq!(
        rig.log.state().group(&group).expect("a group").owner().map(|(node, _)| node),
        Some(rig.nodes[0].groups.node())
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_under_the_same_number() {
    for fault in [Fault::AnswerLost, Fault::Lost, Fault::Refused] {
        let rig = Rig::start().await;
        let group = rig.group_of(0);
        let joined = rig.nodes[0].lone_member(&group).await;
        let before = rig.nodes[0].log.proposals.lock().len();
        rig.nodes[0].log.fail(fault, 3);
        let first = rig.nodes[0].groups.commit(commits(&group, who(&joined), rig.partition(0), 4));
        let second = rig.nodes[0].groups.commit(commits(&group, who(&joined), rig.partition(0), 5));
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first, second), (Ok(vec![Ok(())]), Ok(vec![Ok(())])), "{fault:?}");
        assert_eq!(rig.committed(&group), Some(5));
        let proposals = rig.nodes[0].log.proposals.lock();
        assert!(
            proposals[before + 1..before + 4].iter().all(|again| *again == proposals[before]),
            "{fault:?}"
        );
        // A copy that comes late changes nothing.
        rig.apply(proposals[before].clone());
        assert_eq!(rig.committed(&group), Some(5));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_in_time_may_have_happened() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    let groups = &rig.nodes[0].groups;
    rig.nodes[0].log.hold();
    let commit = groups.commit(commits(&group, who(&joined), rig.partition(0), 4)).await;
    assert_eq!(commit, Err(GroupError::Unknown));
    let forgotten = groups.delete_offsets(&group, vec![rig.partition(0)]).await;
    assert_eq!(forgotten.map_err(|error| error.code()), Err(ErrorCode::CommitUnknown));
    let leaver = Leaver { id: joined.member.clone(), instance: None };
    let left = groups.leave(LeaveRequest { group: group.clone(), members: vec![leaver] }).await;
    assert_eq!(left, Err(GroupError::Unknown));
    // To be heard changes nothing: the member goes on asking.
    let heard = groups.heartbeat(beats(&group, &joined)).await;
    assert_eq!(heard, Err(GroupError::Unavailable { obstacle: GroupObstacle::Metadata }));
}

#[tokio::test(start_paused = true)]
async fn numbers_begin_anew_with_an_incarnation_and_members_survive_it() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    let broker = &rig.nodes[0].broker;
    let incarnation = broker.incarnation().expect("open");
    rig.apply(Command::CloseIncarnation { node: rig.nodes[0].groups.node(), incarnation });
    broker.incarnation_closed(incarnation);
    let mut answer = rig.nodes[0].groups.commit(commits(&group, who(&joined), rig.partition(0), 1)).await;
    while answer.is_err() {
        assert!(
            !matches!(answer, Err(GroupError::UnknownMember | GroupError::IllegalGeneration)),
            "{answer:?}"
        );
        tokio::time::advance(Duration::from_millis(100)).await;
        answer = rig.nodes[0].groups.commit(commits(&group, who(&joined), rig.partition(0), 1)).await;
    }
    assert!(broker.incarnation().is_some_and(|now| now > incarnation));
    assert_eq!((rig.committed(&group), rig.record(&group).generation), (Some(1), 1));
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_go_together_and_a_lone_one_at_once() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let before = rig.nodes[0].log.proposals.lock().len();
    let begun = tokio::time::Instant::now();
    let lone = rig.nodes[0].groups.commit(commits(&group, who(&joined), rig.partition(0), 1)).await;
    assert_eq!((lone, begun.elapsed()), (Ok(vec![Ok(())]), Duration::ZERO));
    let many = (0..50)
        .map(|offset| rig.nodes[0].groups.commit(commits(&group, who(&joined), rig.partition(0), offset)));
    let answers = futures::future::join_all(many).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(rig.nodes[0].log.proposals.lock().len(), before + 2);
    assert_eq!(rig.committed(&group), Some(49), "the last counts");
}

#[tokio::test(start_paused = true)]
async fn offsets_are_never_older_than_an_acknowledged_commit() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let outside = |offset| commits(&group, MemberRef::default(), rig.partition(0), offset);
    assert_eq!(rig.nodes[0].groups.commit(outside(5)).await, Ok(vec![Ok(())]));
    rig.drain(0, Drain::Operator);
    rig.nodes[1].log.cut_off();
    let unsure = rig.nodes[1].groups.offsets(&group, None).await;
    assert_eq!(unsure, Err(GroupError::Unavailable { obstacle: GroupObstacle::Metadata }));
    rig.nodes[1].log.join_again();
    let offsets = rig.nodes[1].groups.offsets(&group, None).await.expect("offsets");
    assert_eq!(offsets[0].1.as_ref().map(|offset| offset.offset), Some(Offset::new(5)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_does_not_go_on_answering_members() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    rig.nodes[0].log.cut_off();
    for _ in 0..5 {
        pass(3).await;
        drop(rig.nodes[0].groups.heartbeat(beats(&group, &joined)).await);
    }
    let answer = rig.nodes[0].groups.heartbeat(beats(&group, &joined)).await;
    assert_eq!(answer, Err(GroupError::Unavailable { obstacle: GroupObstacle::Metadata }));
    rig.nodes[0].log.join_again();
    pass(3).await;
    assert_ne!(rig.nodes[0].groups.heartbeat(beats(&group, &joined)).await, answer);
}

#[tokio::test(start_paused = true)]
async fn each_offset_of_a_commit_has_its_own_answer() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let commit = |index, metadata: Option<String>| OffsetCommit {
        partition: PartitionId::new(
            TopicId::new(if index > 9 { 99 } else { rig.topic.get() }),
            PartitionIndex::new(index),
        ),
        offset: Offset::new(1),
        epoch: None,
        metadata,
    };
    let offsets = vec![
        commit(0, Some(String::new())),
        commit(1, Some("x".repeat(4_097))),
        commit(10, None),
        commit(2, Some("x".repeat(4_096))),
        commit(3, None),
    ];
    let request =
        CommitRequest { group: group.clone(), member: MemberRef::default(), offsets, forget: Vec::new() };
    let too_large = Err(OffsetRefusal::MetadataTooLarge { limit: 4_096 });
    let answers = rig.nodes[0].groups.commit(request).await;
    assert_eq!(answers, Ok(vec![Ok(()), too_large, Err(OffsetRefusal::UnknownPartition), Ok(()), Ok(())]));
    let notes = rig.nodes[0].groups.offsets(&group, None).await.expect("offsets");
    let notes: Vec<Option<String>> =
        notes.into_iter().filter_map(|(_, offset)| Some(offset?.metadata)).collect();
    assert_eq!(notes, [Some(String::new()), Some("x".repeat(4_096)), None], "no note is not an empty one");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_while_it_waits_is_not_waited_for() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    let mut newcomer = Box::pin(rig.nodes[0].groups.join(joins(&group, "")));
    while rig.nodes[0].groups.describe(&group).await.expect("a group").status.members.len() < 2 {
        assert!((&mut newcomer).now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    drop(newcomer);
    let again = rig.nodes[0].groups.join(joins(&group, &joined.member)).await.expect("joined");
    assert_eq!((again.generation, again.members.len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn groups_without_members_are_deleted_sought_and_forgotten() {
    let rig = Rig::start().await;
    let (group, other) = (rig.group_of(0), &rig.nodes[1].groups);
    let to = |offset| vec![(rig.partition(0), Some(Offset::new(offset)))];
    other.seek(&group, to(3), None, Mode::ValidateOnly).await.expect("possible");
    assert_eq!(rig.committed(&group), None);
    other.seek(&group, to(3), None, Mode::Apply).await.expect("made");
    assert_eq!(rig.committed(&group), Some(3));
    let gone = vec![(PartitionId::new(TopicId::new(99), PartitionIndex::new(0)), None)];
    let unknown = other.seek(&group, gone, None, Mode::Apply).await;
    assert!(matches!(unknown, Err(GroupAdminError::UnknownPartition)));
    let joined = rig.nodes[0].lone_member(&group).await;
    assert!(matches!(
        other.seek(&group, to(4), None, Mode::Apply).await,
        Err(GroupAdminError::NotEmpty { .. })
    ));
    assert!(matches!(other.delete(&group, None).await, Err(GroupAdminError::NotEmpty { .. })));
    let forget = rig.nodes[0].groups.delete_offsets(&group, vec![rig.partition(0)]).await;
    assert!(matches!(forget, Err(GroupAdminError::NotEmpty { .. })), "what it reads cannot be told");
    let leaver = Leaver { id: joined.member.clone(), instance: None };
    let left = rig.nodes[0].groups.leave(LeaveRequest { group: group.clone(), members: vec![leaver] }).await;
    assert_eq!(left, Ok(vec![Ok(())]));
    let gone = PartitionId::new(TopicId::new(99), PartitionIndex::new(0));
    let forget = rig.nodes[0].groups.delete_offsets(&group, vec![gone, rig.partition(0)]).await;
    assert_eq!(forget.expect("forgotten"), [Err(OffsetRefusal::UnknownPartition), Ok(())]);
    assert_eq!(rig.committed(&group), None);
    other.delete(&group, None).await.expect("deleted");
    assert!(matches!(other.delete(&group, None).await, Err(GroupAdminError::NotFound { .. })));
    // The coordinator that has it in memory begins anew.
    let joined = rig.nodes[0].lone_member(&group).await;
    assert_eq!(joined.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_says_who_looks_after_what() {
    let rig = Rig::start().await;
    let groups = [rig.group_of(0), rig.group_of(1)];
    for (node, group) in rig.nodes.iter().zip(&groups) {
        node.lone_member(group).await;
    }
    let mut listed = rig.nodes[0].groups.list().await.expect("a list");
    listed.sort_by_key(|summary| summary.coordinator);
    for (summary, (group, node)) in listed.iter().zip(groups.iter().zip(&rig.nodes)) {
        assert_eq!((&summary.group, summary.coordinator), (group, Some(node.groups.node())));
        assert_eq!((summary.state, summary.members), (GroupState::Stable, 1));
        assert_eq!(summary.protocol_type, "consumer");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_sends_members_away_and_keeps_what_they_committed() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let joined = rig.nodes[0].lone_member(&group).await;
    let mut newcomer = Box::pin(rig.nodes[0].groups.join(joins(&group, "")));
    while rig.nodes[0].groups.describe(&group).await.expect("a group").status.members.len() < 2 {
        assert!((&mut newcomer).now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    rig.nodes[0].log.hold();
    let mut commit = Box::pin(rig.nodes[0].groups.commit(commits(&group, who(&joined), rig.partition(0), 4)));
    let before = rig.nodes[0].log.proposals.lock().len();
    while rig.nodes[0].log.proposals.lock().len() == before {
        assert!((&mut commit).now_or_never().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    rig.drain(0, Drain::Leaving);
    let drained = rig.nodes[0].groups.drain();
    let release = async { rig.nodes[0].log.release() };
    tokio::join!(drained, release);
    assert_eq!(commit.await, Ok(vec![Ok(())]));
    let other = rig.nodes[1].groups.node();
    let away = Err(GroupError::NotCoordinator { coordinator: Some(other) });
    assert_eq!(newcomer.await, away);
    assert_eq!(rig.nodes[0].groups.heartbeat(beats(&group, &joined)).await, away.map(|_| ()));
    assert_eq!(rig.committed(&group), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_nobody_uses_leaves_the_memory_and_comes_back() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let outside = commits(&group, MemberRef::default(), rig.partition(0), 1);
    assert_eq!(rig.nodes[0].groups.commit(outside.clone()).await, Ok(vec![Ok(())]));
    assert_eq!(rig.nodes[0].groups.room().all_at_work().len(), 1);
    pass(62).await;
    assert_eq!(rig.nodes[0].groups.room().all_at_work().len(), 0);
    assert_eq!(rig.nodes[0].groups.commit(outside).await, Ok(vec![Ok(())]));
}

#[tokio::test(start_paused = true)]
async fn lag_is_told_in_records_and_in_the_age_of_the_first_that_is_not_read() {
    let rig = Rig::start().await;
    let group = rig.group_of(0);
    let now = rig.log.state().cluster_time();
    let tick = |seconds: i64| rig.apply(Command::Tick { now: now.plus_millis(seconds * 1_000) });
    for at in [0, 10, 20] {
        tick(at);
        rig.append(0).await;
    }
    tick(60);
    let behind = |committed| {
        let (groups, rig, group) = (rig.nodes[0].groups.clone(), &rig, &group);
        async move {
            let outside = commits(group, MemberRef::default(), rig.partition(0), committed);
            assert_eq!(groups.commit(outside).await, Ok(vec![Ok(())]));
            let lag = groups.lag(group).await.expect("a group").remove(0);
            // The clock of this node is years ahead of the cluster's, and is believed for a minute.
            (lag.records, lag.behind.as_secs().saturating_sub(61))
        }
    };
    assert_eq!(behind(0).await, (3, 55));
    assert_eq!(behind(1).await, (2, 45));
    assert_eq!(behind(2).await, (1, 35));
    assert_eq!(behind(3).await, (0, 0));
    assert_eq!(behind(9).await, (0, 0), "beyond the end");
    // What was dropped cannot be read any more: the first that is there counts.
    rig.nodes[0].broker.trim(rig.partition(0), Offset::new(2)).await.expect("trimmed");
    assert_eq!(behind(0).await, (3, 35));
}
