//! Members that come and go.

use super::*;

#[test]
fn a_new_member_is_given_an_id_that_is_remembered_for_a_session() {
    let mut world = World::new();
    let new = JoinRequest { newcomers: Newcomers::MustReturn, ..member("") };
    let ticket = world.join(new.clone());
    let GroupError::MemberIdRequired { member: id } = world.refused(ticket) else { panic!("79 is due") };
    world.pass(s(9));
    let ticket = world.join(JoinRequest { member: id.clone(), ..new.clone() });
    world.pass(s(3));
    let joined = world.joined(ticket);
    assert_eq!((joined.member.as_str(), joined.generation), (id.as_str(), 1));

    let mut world = World::new();
    let ticket = world.join(new.clone());
    let GroupError::MemberIdRequired { member: id } = world.refused(ticket) else { panic!("79 is due") };
    world.pass(s(11));
    let ticket = world.join(JoinRequest { member: id, ..new });
    assert_eq!(world.refused(ticket), GroupError::UnknownMember);
}

#[test]
fn the_first_generation_waits_for_more_and_each_newcomer_begins_the_wait_anew() {
    let mut world = World::new();
    let first = world.join(member(""));
    world.pass(s(2));
    let second = world.join(member(""));
    world.pass(Duration::from_millis(2_999));
    assert_eq!(world.answers, []);
    world.pass(Duration::from_millis(1));
    let (first, second) = (world.joined(first), world.joined(second));
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!((first.leader.as_str(), second.leader.as_str()), ("m1", "m1"));
    assert_eq!((first.members.len(), second.members.len()), (2, 0));
}

#[test]
fn the_first_wait_ends_at_the_rebalance_timeout_however_many_come() {
    let mut world = World::new();
    let short = |id: &str| JoinRequest { rebalance_timeout: s(4), ..member(id) };
    let first = world.join(short(""));
    world.pass(s(2));
    let _second = world.join(short(""));
    world.pass(s(2));
    assert_eq!(world.joined(first).generation, 1);
}

#[test]
fn a_rebalance_ends_when_all_members_have_joined() {
    let (mut world, ids) = World::stable(vec![member(""), member("")]);
    let third = world.join(member(""));
    assert_eq!(world.heartbeat(who(&ids[0], 1)), Err(GroupError::RebalanceInProgress));
    let sync = world.sync(who(&ids[1], 1), &[]);
    assert_eq!(world.refused(sync), GroupError::RebalanceInProgress);
    let first = world.join(member(&ids[0]));
    assert_eq!(world.answers, []);
    let second = world.join(member(&ids[1]));
    for (ticket, leads) in [(third, false), (first, true), (second, false)] {
        let joined = world.joined(ticket);
        assert_eq!((joined.generation, joined.leader == ids[0]), (2, true));
        assert_eq!(joined.members.len(), if leads { 3 } else { 0 });
    }
}

#[test]
fn a_rebalance_drops_those_who_do_not_join_within_the_longest_rebalance_timeout() {
    let patient = JoinRequest { rebalance_timeout: s(90), ..member("") };
    let (mut world, ids) = World::stable(vec![member(""), patient]);
    let third = world.join(member(""));
    // It is there, but does not join.
    for _ in 0..18 {
        world.pass(s(5));
        if world.answers.is_empty() {
            assert_eq!(world.heartbeat(who(&ids[0], 1)), Err(GroupError::RebalanceInProgress));
            assert_eq!(world.heartbeat(who(&ids[1], 1)), Err(GroupError::RebalanceInProgress));
        }
    }
    let joined = world.joined(third);
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
    assert_eq!(world.heartbeat(who(&ids[0], 1)), Err(GroupError::UnknownMember));
}

#[test]
fn a_silent_member_goes_and_the_others_rebalance() {
    let (mut world, ids) = World::stable(vec![member(""), member("")]);
    world.pass(s(9));
    assert_eq!(world.heartbeat(who(&ids[1], 1)), Ok(()));
    world.pass(s(1));
    assert_eq!(world.heartbeat(who(&ids[1], 1)), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.heartbeat(who(&ids[0], 1)), Err(GroupError::UnknownMember));
    let ticket = world.join(member(&ids[1]));
    assert_eq!(world.joined(ticket).leader, ids[1]);
}

#[test]
fn a_member_that_waits_in_join_is_not_silent() {
    let (mut world, ids) = World::stable(vec![member(""), member("")]);
    let waits = world.join(member(&ids[0]));
    for _ in 0..5 {
        world.pass(s(8));
        assert_eq!(world.heartbeat(who(&ids[1], 1)), Err(GroupError::RebalanceInProgress));
    }
    let last = world.join(member(&ids[1]));
    assert_eq!((world.joined(waits).generation, world.joined(last).generation), (2, 2));
}

#[test]
fn commits_are_taken_until_the_next_generation_and_then_once_it_is_assigned() {
    let (mut world, ids) = World::stable(vec![member(""), member("")]);
    assert_eq!(world.commit(who(&ids[0], 1)), Ok(Committer::Member { generation: 1 }));
    let first = world.join(member(&ids[0]));
    assert_eq!(world.commit(who(&ids[1], 1)), Ok(Committer::Member { generation: 1 }));
    let _second = world.join(member(&ids[1]));
    assert_eq!(world.joined(first).generation, 2);
    assert_eq!(world.commit(who(&ids[1], 2)), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.commit(who(&ids[1], 1)), Err(GroupError::IllegalGeneration));
    let _leader = world.sync(who(&ids[0], 2), &[]);
    assert_eq!(world.commit(who(&ids[1], 2)), Ok(Committer::Member { generation: 2 }));
}

#[test]
fn outsiders_commit_only_to_groups_without_members() {
    let outside = MemberRef::default();
    let mut world = World::new();
    assert_eq!(world.commit(outside.clone()), Ok(Committer::Outside));
    let (mut world, ids) = World::stable(vec![member("")]);
    assert_eq!(world.commit(outside.clone()), Err(GroupError::UnknownMember));
    let unnumbered = MemberRef { generation: None, ..who(&ids[0], 1) };
    assert_eq!(world.commit(unnumbered), Err(GroupError::IllegalGeneration));
    assert_eq!(world.leave(&[(&ids[0], None)]), [Ok(())]);
    assert_eq!(world.commit(outside), Ok(Committer::Outside));
    assert_eq!(world.commit(who(&ids[0], 1)), Err(GroupError::UnknownMember));
}

#[test]
fn the_last_member_that_goes_leaves_an_empty_group_of_the_next_generation() {
    let (mut world, ids) = World::stable(vec![member("")]);
    assert_eq!(world.leave(&[(&ids[0], None), ("nobody", None)]), [Ok(()), Err(GroupError::UnknownMember)]);
    let stored = world.stored.last().expect("it was stored");
    assert_eq!((stored.members.len(), stored.generation, stored.protocol.clone()), (0, 2, None));
    assert!(world.group.is_idle());
    let ticket = world.join(member(""));
    world.pass(s(3));
    assert_eq!(world.joined(ticket).generation, 3);
}

#[test]
fn those_who_go_before_the_first_generation_change_nothing() {
    let mut world = World::new();
    let ticket = world.join(member(""));
    world.give(Input::Gone(vec![ticket]));
    assert!(world.group.is_idle());
    assert_eq!(world.stored, []);
    let ticket = world.join(member(""));
    world.pass(s(3));
    assert_eq!(world.joined(ticket).generation, 1);
}

#[test]
fn the_loss_of_the_leader_while_it_assigns_begins_the_next_generation() {
    let mut world = World::new();
    let (first, second) = (world.join(member("")), world.join(member("")));
    world.pass(s(3));
    let (first, second) = (world.joined(first).member, world.joined(second).member);
    let waits = world.sync(who(&second, 1), &[]);
    world.pass(s(10));
    assert_eq!(world.refused(waits), GroupError::RebalanceInProgress);
    assert_eq!(world.heartbeat(who(&first, 1)), Err(GroupError::UnknownMember));
    let ticket = world.join(member(&second));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.leader), (2, second));
}

#[test]
fn a_leader_that_never_assigns_is_dropped_after_the_rebalance_timeout() {
    let mut world = World::new();
    let (first, second) = (world.join(member("")), world.join(member("")));
    world.pass(s(3));
    let (first, second) = (world.joined(first).member, world.joined(second).member);
    let waits = world.sync(who(&second, 1), &[]);
    for _ in 0..12 {
        assert_eq!(world.answers, []);
        assert_eq!(world.heartbeat(who(&first, 1)), Ok(()));
        world.pass(s(5));
    }
    assert_eq!(world.refused(waits), GroupError::RebalanceInProgress);
    assert_eq!(world.heartbeat(who(&first, 1)), Err(GroupError::UnknownMember));
}

#[test]
fn the_protocol_is_one_that_all_know_by_vote() {
    let knows = |names: &[&str]| {
        let protocols = names.iter().map(|name| ((*name).to_owned(), Bytes::new()));
        JoinRequest { protocols: protocols.collect(), ..member("") }
    };
    let (world, _) =
        World::stable(vec![knows(&["a", "b", "c"]), knows(&["c", "b", "a"]), knows(&["c", "b", "x"])]);
    assert_eq!(world.stored[0].protocol.as_deref(), Some("c"));
    // Between equals the leader's choice.
    let (mut world, _) = World::stable(vec![knows(&["b", "a"]), knows(&["a", "b"])]);
    assert_eq!(world.stored[0].protocol.as_deref(), Some("b"));
    let stranger = world.join(knows(&["z"]));
    assert_eq!(world.refused(stranger), GroupError::InconsistentProtocol);
    let other = world.join(JoinRequest { protocol_type: "connect".to_owned(), ..knows(&["a"]) });
    assert_eq!(world.refused(other), GroupError::InconsistentProtocol);
    let none = world.join(knows(&[]));
    assert_eq!(world.refused(none), GroupError::InconsistentProtocol);
}

#[test]
fn a_sync_that_takes_the_group_for_another_is_refused() {
    let (mut world, ids) = World::stable(vec![member("")]);
    for (kind, protocol) in [(Some("connect"), None), (None, Some("sticky"))] {
        let ticket = world.ticket();
        let request = SyncRequest {
            group: "g".parse().expect("a group id"),
            member: who(&ids[0], 1),
            protocol_type: kind.map(str::to_owned),
            protocol: protocol.map(str::to_owned),
            assignments: Vec::new(),
        };
        world.give(Input::Sync { ticket, request });
        assert_eq!(world.refused(ticket), GroupError::InconsistentProtocol);
    }
}

#[test]
fn assignments_come_back_byte_for_byte_and_those_for_nobody_are_dropped() {
    let mut world = World::new();
    let (first, second) = (world.join(member("")), world.join(member("")));
    world.pass(s(3));
    let (first, second) = (world.joined(first).member, world.joined(second).member);
    let waits = world.sync(who(&second, 1), &[]);
    let leads = world.sync(who(&first, 1), &[(&second, "\0\u{1}x"), ("nobody", "y")]);
    assert_eq!((world.synced(leads), world.synced(waits)), (String::new(), "\0\u{1}x".to_owned()));
    let again = world.sync(who(&second, 1), &[("m1", "not the leader's")]);
    assert_eq!(world.synced(again), "\0\u{1}x");
}

#[test]
fn session_timeouts_are_within_their_limits() {
    let mut world = World::new();
    for (millis, fits) in [(5_999, false), (6_000, true), (1_800_000, true), (1_800_001, false)] {
        let session_timeout = Duration::from_millis(millis);
        let ticket = world.join(JoinRequest { session_timeout, ..member("") });
        let refused =
            matches!(world.answer(ticket), Some(Answer::Join(Err(GroupError::InvalidSessionTimeout { .. }))));
        assert_eq!(!refused, fits, "{millis} ms");
    }
}

#[test]
fn a_group_has_no_more_members_than_it_may_also_by_ids_that_were_given_out() {
    let mut world = World::new();
    let new = JoinRequest { newcomers: Newcomers::MustReturn, ..member("") };
    let given: Vec<String> = (0..4)
        .map(|_| {
            let ticket = world.join(new.clone());
            match world.refused(ticket) {
                GroupError::MemberIdRequired { member } => member,
                error => panic!("{error}"),
            }
        })
        .collect();
    for _ in 0..4 {
        let _joins = world.join(member(""));
    }
    let ticket = world.join(member(""));
    assert_eq!(world.refused(ticket), GroupError::Full { limit: 4 });
    let ticket = world.join(JoinRequest { member: given[0].clone(), ..new });
    assert_eq!(world.refused(ticket), GroupError::Full { limit: 4 });
}

#[test]
fn members_that_say_too_much_of_themselves_are_refused() {
    let mut world = World::new();
    let metadata = Bytes::from(vec![0; 3 << 20]);
    let ticket = world.join(JoinRequest { protocols: vec![("range".to_owned(), metadata)], ..member("") });
    assert!(matches!(world.refused(ticket), GroupError::TooLarge { .. }));
    let (mut world, ids) = World::stable(vec![member("")]);
    let ticket = world.join(member(&ids[0]));
    assert_eq!(world.joined(ticket).generation, 2);
    let large = "x".repeat(4 << 20);
    let ticket = world.sync(who(&ids[0], 2), &[(&ids[0], &large)]);
    assert!(matches!(world.refused(ticket), GroupError::TooLarge { .. }));
}

#[test]
fn a_join_that_repeats_a_lost_answer_gets_it_again() {
    let mut world = World::new();
    let (first, second) = (world.join(member("")), world.join(member("")));
    world.pass(s(3));
    let (first, second) = (world.joined(first), world.joined(second));
    let again = world.join(member(&first.member));
    assert_eq!(world.joined(again), first);
    let again = world.join(member(&second.member));
    assert_eq!(world.joined(again), second);
    // With other metadata it is a new beginning.
    let changed = vec![("range".to_owned(), Bytes::from_static(b"other"))];
    let again = world.join(JoinRequest { protocols: changed, ..member(&second.member) });
    assert_eq!(world.answer(again), None);
    assert_eq!(world.heartbeat(who(&first.member, 1)), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_follower_that_joins_a_stable_group_unchanged_disturbs_nobody() {
    let (mut world, ids) = World::stable(vec![member(""), member("")]);
    let ticket = world.join(member(&ids[1]));
    assert_eq!(world.joined(ticket).generation, 1);
    assert_eq!(world.heartbeat(who(&ids[0], 1)), Ok(()));
    // The leader wants to assign anew.
    let ticket = world.join(member(&ids[0]));
    assert_eq!(world.answer(ticket), None);
    assert_eq!(world.heartbeat(who(&ids[1], 1)), Err(GroupError::RebalanceInProgress));
}

#[test]
fn the_second_of_two_joins_of_one_member_counts() {
    let (mut world, ids) = World::stable(vec![member(""), member("")]);
    let first = world.join(member(&ids[0]));
    let second = world.join(member(&ids[0]));
    assert_eq!(world.refused(first), GroupError::RebalanceInProgress);
    let _other = world.join(member(&ids[1]));
    assert_eq!(world.joined(second).generation, 2);
}

#[test]
fn a_member_that_hung_up_is_waited_for_and_one_that_has_no_id_is_forgotten() {
    let (mut world, ids) = World::stable(vec![member(""), member("")]);
    let new = world.join(member(""));
    let first = world.join(member(&ids[0]));
    world.give(Input::Gone(vec![new, first]));
    let second = world.join(member(&ids[1]));
    assert_eq!(world.answers, []);
    let first = world.join(member(&ids[0]));
    assert_eq!(world.joined(first).members.len(), 2);
    assert_eq!(world.joined(second).generation, 2);
}

#[test]
fn nothing_is_answered_before_it_is_stored_and_nothing_else_is_looked_at_meanwhile() {
    let mut world = World::new();
    world.slow = true;
    let ticket = world.join(member(""));
    world.pass(s(3));
    assert_eq!((world.answers.len(), world.stored.len()), (0, 1));
    assert_eq!(world.group.deadline(), None);
    let beat = world.ticket();
    world.give(Input::Heartbeat { ticket: beat, member: who("m1", 1) });
    assert_eq!(world.answers, []);
    world.pass(s(60));
    world.give(Input::Stored);
    assert_eq!(world.joined(ticket).generation, 1);
    // The session begins with the answer, however long it took to store.
    assert_eq!(world.answer(beat), Some(Answer::Heartbeat(Ok(()))));
}

#[test]
fn a_coordinator_that_takes_a_stable_group_over_gives_everybody_a_session() {
    let (world, ids) = World::stable(vec![member(""), member("")]);
    let mut next = World::load(world.stored.last().expect("stored"));
    next.pass(s(9));
    assert_eq!(next.heartbeat(who(&ids[0], 1)), Ok(()));
    let ticket = next.sync(who(&ids[1], 1), &[]);
    assert_eq!(next.synced(ticket), ids[1]);
    assert_eq!(next.commit(who(&ids[1], 1)), Ok(Committer::Member { generation: 1 }));
    next.pass(s(10));
    assert_eq!(next.heartbeat(who(&ids[0], 1)), Err(GroupError::UnknownMember));
}

#[test]
fn a_coordinator_that_takes_over_before_the_assignment_waits_for_it() {
    let mut world = World::new();
    let (first, second) = (world.join(member("")), world.join(member("")));
    world.pass(s(3));
    let (first, second) = (world.joined(first).member, world.joined(second).member);
    let mut next = World::load(world.stored.last().expect("stored"));
    let waits = next.sync(who(&second, 1), &[]);
    let leads = next.sync(who(&first, 1), &[(&first, "a"), (&second, "b")]);
    assert_eq!((next.synced(leads).as_str(), next.synced(waits).as_str()), ("a", "b"));

    let mut next = World::load(world.stored.last().expect("stored"));
    let waits = next.sync(who(&second, 1), &[]);
    for _ in 0..12 {
        assert_eq!(next.heartbeat(who(&first, 1)), Ok(()));
        next.pass(s(5));
    }
    assert_eq!(next.refused(waits), GroupError::RebalanceInProgress);
}

#[test]
fn offsets_of_topics_that_members_read_are_not_forgotten() {
    let orders: TopicName = "orders".parse().expect("a name");
    let others: TopicName = "others".parse().expect("a name");
    let subscription = Bytes::from_static(b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff");
    let reads = JoinRequest { protocols: vec![("range".to_owned(), subscription)], ..member("") };
    let (world, _) = World::stable(vec![reads]);
    let topics = [orders, others];
    assert_eq!(world.group.forget(&topics), Ok(vec![Forget::Subscribed, Forget::May]));
    // What these read cannot be told.
    let (world, _) = World::stable(vec![member("")]);
    assert_eq!(world.group.forget(&topics), Err(NotEmpty));
    assert_eq!(World::new().group.forget(&topics), Ok(vec![Forget::May, Forget::May]));
}
