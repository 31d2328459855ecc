//! Static members: they come back under their name.

use super::*;

fn who_fixed(instance: &str, id: &str, generation: u32) -> MemberRef {
    MemberRef { instance: Some(instance.to_owned()), ..who(id, generation) }
}

#[test]
fn a_static_member_that_comes_back_unchanged_gets_a_new_id_and_disturbs_nobody() {
    let (mut world, ids) = World::stable(vec![member(""), fixed("one", "")]);
    let ticket = world.join(fixed("one", ""));
    let joined = world.joined(ticket);
    assert_ne!(joined.member, ids[1]);
    assert_eq!((joined.generation, joined.skip_assignment), (1, false));
    assert_eq!(world.heartbeat(who(&ids[0], 1)), Ok(()));
    let stored = world.stored.last().expect("stored");
    assert!(stored.member(&joined.member).is_some() && stored.member(&ids[1]).is_none());
    // Whoever has the old id is another process of the same name.
    assert_eq!(world.heartbeat(who_fixed("one", &ids[1], 1)), Err(GroupError::Fenced));
    assert_eq!(world.commit(who_fixed("one", &ids[1], 1)), Err(GroupError::Fenced));
    let sync = world.sync(who_fixed("one", &ids[1], 1), &[]);
    assert_eq!(world.refused(sync), GroupError::Fenced);
    let join = world.join(fixed("one", &ids[1]));
    assert_eq!(world.refused(join), GroupError::Fenced);
    assert_eq!(world.leave(&[(&ids[1], Some("one"))]), [Err(GroupError::Fenced)]);
    let sync = world.sync(who_fixed("one", &joined.member, 1), &[]);
    assert_eq!(world.synced(sync), ids[1], "what was assigned to it before");
}

#[test]
fn a_static_leader_that_comes_back_leads_and_lets_the_assignment_stand() {
    let (mut world, ids) = World::stable(vec![fixed("one", ""), member("")]);
    let ticket = world.join(fixed("one", ""));
    let joined = world.joined(ticket);
    assert!(joined.skip_assignment);
    assert_eq!((joined.leader == joined.member, joined.members.len()), (true, 2));
    let old = joined.clone().without_skip();
    assert_eq!((old.leader.as_str(), old.members.len(), old.skip_assignment), ("", 0, false));
    assert_eq!(world.heartbeat(who(&ids[1], 1)), Ok(()));
}

#[test]
fn a_static_member_that_comes_back_changed_begins_a_rebalance() {
    let (mut world, ids) = World::stable(vec![member(""), fixed("one", "")]);
    let changed = vec![("range".to_owned(), Bytes::from_static(b"other"))];
    let back = world.join(JoinRequest { protocols: changed, ..fixed("one", "") });
    assert_eq!(world.heartbeat(who(&ids[0], 1)), Err(GroupError::RebalanceInProgress));
    let first = world.join(member(&ids[0]));
    assert_eq!((world.joined(first).generation, world.joined(back).generation), (2, 2));
}

/// What a Java consumer says from its second join on holds its generation, and what it owns then.
#[test]
fn a_static_member_that_comes_back_for_the_same_topics_disturbs_nobody() {
    let says = |topic: &str, generation: i32| {
        let mut bytes = b"\0\x02\0\0\0\x01\0\x01".to_vec();
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(b"\xff\xff\xff\xff\0\0\0\0");
        bytes.extend_from_slice(&generation.to_be_bytes());
        vec![("range".to_owned(), Bytes::from(bytes))]
    };
    let one = |protocols| JoinRequest { protocols, ..fixed("one", "") };
    let other = JoinRequest { protocols: says("t", -1), ..member("") };
    let (mut world, ids) = World::stable(vec![other, one(says("t", 7))]);
    let ticket = world.join(one(says("t", -1)));
    assert_eq!(world.joined(ticket).generation, 1);
    assert_eq!(world.heartbeat(who(&ids[0], 1)), Ok(()));
    let stored = world.stored.last().and_then(|stored| stored.members.last()).expect("stored");
    assert_eq!(stored.protocols, [("range".to_owned(), says("t", -1)[0].1.to_vec())], "as it says now");
    let _back = world.join(one(says("u", -1)));
    assert_eq!(world.heartbeat(who(&ids[0], 1)), Err(GroupError::RebalanceInProgress));
}

/// Topic "t", and notes.
fn asks(notes: &[u8]) -> Bytes {
    [b"\0\0\0\0\0\x01\0\x01t", notes].concat().into()
}

#[test]
fn a_static_member_that_comes_back_with_another_protocol_begins_a_rebalance() {
    let knows = |names: &[&str]| {
        let protocols = names.iter().map(|name| ((*name).to_owned(), asks(b""))).collect();
        JoinRequest { protocols, ..fixed("one", "") }
    };
    let (mut world, _) = World::stable(vec![knows(&["range"])]);
    let more = world.join(knows(&["range", "sticky"]));
    assert_eq!(world.joined(more).generation, 1, "the vote stands");
    let turned = world.join(knows(&["sticky", "range"]));
    let joined = world.joined(turned);
    assert_eq!((joined.generation, joined.protocol.as_str()), (2, "sticky"), "the vote is another");
    let other = world.join(knows(&["range"]));
    assert_eq!(world.joined(other).protocol, "range");
}

#[test]
fn what_members_of_other_kinds_of_groups_say_is_compared_byte_for_byte() {
    let says = |notes: &[u8]| JoinRequest {
        protocol_type: "connect".to_owned(),
        protocols: vec![("range".to_owned(), asks(notes))],
        ..fixed("one", "")
    };
    let (mut world, _) = World::stable(vec![says(b"x")]);
    let same = world.join(says(b"x"));
    assert_eq!(world.joined(same).generation, 1);
    let other = world.join(says(b"y"));
    assert_eq!(world.joined(other).generation, 2);
}

#[test]
fn a_static_member_that_comes_back_with_more_than_can_be_stored_begins_a_rebalance() {
    let says = |notes: usize| JoinRequest {
        protocols: vec![("range".to_owned(), asks(&vec![b'x'; notes]))],
        ..fixed("one", "")
    };
    let mut world = World::new();
    let ticket = world.join(says(0));
    world.pass(s(3));
    let id = world.joined(ticket).member;
    let sync = world.sync(who_fixed("one", &id, 1), &[(&id, &"a".repeat((4 << 20) - 8_192))]);
    world.synced(sync);
    let small = world.join(says(1));
    assert_eq!(world.joined(small).generation, 1);
    let large = world.join(says(1 << 20));
    assert_eq!(world.joined(large).generation, 2, "the assignment makes room");
}

#[test]
fn a_static_member_replaces_one_that_still_waits() {
    let (mut world, ids) = World::stable(vec![member(""), fixed("one", "")]);
    let _leader = world.join(member(&ids[0]));
    let waits = world.join(fixed("one", &ids[1]));
    // The rebalance was complete with it; now it waits for its assignment.
    assert_eq!(world.joined(waits).generation, 2);
    let waits = world.sync(who_fixed("one", &ids[1], 2), &[]);
    let back = world.join(fixed("one", ""));
    assert_eq!(world.refused(waits), GroupError::Fenced);
    // The leader may already assign to the id that is gone, so all join again.
    assert_eq!(world.heartbeat(who(&ids[0], 2)), Err(GroupError::RebalanceInProgress));
    let _leader = world.join(member(&ids[0]));
    assert_eq!(world.joined(back).generation, 3);
}

#[test]
fn a_static_member_that_is_away_stays_for_its_session() {
    let short = |request: JoinRequest| JoinRequest { rebalance_timeout: s(5), ..request };
    let (mut world, ids) = World::stable(vec![short(member("")), short(fixed("one", ""))]);
    let first = world.join(short(member(&ids[0])));
    world.pass(s(5));
    let joined = world.joined(first);
    assert_eq!((joined.generation, joined.members.len()), (2, 2));
    let leads = world.sync(who(&ids[0], 2), &[]);
    assert_eq!(world.synced(leads), "");
    assert_eq!(world.heartbeat(who_fixed("one", &ids[1], 2)), Ok(()));
    world.pass(s(5));
    // It has not asked for its assignment in time.
    assert_eq!(world.heartbeat(who(&ids[0], 2)), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_group_of_static_members_that_are_all_away_waits_for_one_of_them() {
    let short = |instance: &str| JoinRequest {
        rebalance_timeout: s(5),
        session_timeout: s(30),
        ..fixed(instance, "")
    };
    let (mut world, ids) = World::stable(vec![short("one"), short("two")]);
    // Somebody comes and goes: all are to join.
    let guest = world.join(JoinRequest { rebalance_timeout: s(5), ..member("") });
    world.give(Input::Gone(vec![guest]));
    world.pass(s(20));
    assert_eq!(world.stored.len(), 2);
    let back = world.join(short("two"));
    world.pass(s(5));
    let joined = world.joined(back);
    assert_eq!((joined.generation, joined.leader == joined.member), (2, true));
    assert_eq!(joined.members.iter().filter(|member| member.id == ids[0]).count(), 1);
}

#[test]
fn an_administrator_takes_a_static_member_out_by_its_name() {
    let (mut world, ids) = World::stable(vec![member(""), fixed("one", "")]);
    assert_eq!(
        world.leave(&[("", Some("one")), ("", Some("two")), ("nobody", None)]),
        [Ok(()), Err(GroupError::UnknownMember), Err(GroupError::UnknownMember)]
    );
    assert_eq!(world.heartbeat(who(&ids[0], 1)), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_name_that_nobody_has_is_no_member() {
    let (mut world, ids) = World::stable(vec![member("")]);
    assert_eq!(world.heartbeat(who_fixed("one", &ids[0], 1)), Err(GroupError::UnknownMember));
    let ticket = world.join(fixed("one", "m7"));
    assert_eq!(world.refused(ticket), GroupError::UnknownMember);
}
