//! Members of consumer groups and their coordinator.

use streamhouse_client::{
    CallError, ErrorCode, Group, Membership, Offset, PartitionIndex, StreamHouse, TopicPartition,
};

use crate::fake::{Act, Cluster};

fn who() -> Membership {
    Membership { member: "m".to_owned(), instance: None, generation: 1 }
}

fn calls(cluster: &Cluster) -> Vec<u64> {
    std::mem::take(&mut cluster.log().lock().group_calls)
}

async fn group(cluster: &Cluster) -> Group {
    let house: StreamHouse = cluster.connect().await;
    house.group("g")
}

#[tokio::test]
async fn calls_find_the_coordinator_and_find_it_anew_when_it_has_moved() {
    let cluster = Cluster::start(3, 1).await;
    let group = group(&cluster).await;
    cluster.log().lock().coordinator = 2;
    group.heartbeat(&who()).await.unwrap();
    assert_eq!(calls(&cluster).last(), Some(&2));
    group.heartbeat(&who()).await.unwrap();
    assert_eq!(calls(&cluster), [2], "it is known by now");
    cluster.log().lock().coordinator = 3;
    group.heartbeat(&who()).await.unwrap();
    assert_eq!(calls(&cluster), [2, 3], "whoever was it says who is");
    group.clone().heartbeat(&who()).await.unwrap();
    assert_eq!(calls(&cluster), [3]);
}

#[tokio::test]
async fn calls_wait_until_there_is_a_coordinator() {
    let cluster = Cluster::start(2, 1).await;
    let group = group(&cluster).await;
    let mut asked = Box::pin(async { group.heartbeat(&who()).await });
    // Some tries find none.
    while cluster.log().lock().group_calls.len() < 2 {
        tokio::select! {
            answer = &mut asked => panic!("{answer:?} from nobody"),
            () = tokio::task::yield_now() => {}
        }
    }
    cluster.log().lock().coordinator = 1;
    asked.await.unwrap();
}

#[tokio::test]
async fn what_tells_a_member_what_to_do_comes_back_at_once() {
    let cluster = Cluster::start(2, 1).await;
    let group = group(&cluster).await;
    cluster.log().lock().coordinator = 1;
    group.heartbeat(&who()).await.unwrap();
    calls(&cluster);
    for code in [ErrorCode::RebalanceInProgress, ErrorCode::UnknownMember, ErrorCode::IllegalGeneration] {
        cluster.node(1).state.lock().acts.push_back(Act::Nack(code));
        let error = group.heartbeat(&who()).await.unwrap_err();
        assert!(matches!(&error, CallError::Rejected(_)) && error.code() == Some(code), "{error:?}");
        assert_eq!(calls(&cluster), [1], "{code:?}");
    }
}

#[tokio::test]
async fn an_offset_that_is_refused_is_an_error_of_the_commit() {
    let cluster = Cluster::start(1, 2).await;
    let group = group(&cluster).await;
    cluster.log().lock().coordinator = 1;
    let place =
        |partition| TopicPartition { topic: "t".to_owned(), partition: PartitionIndex::new(partition) };
    let offset = |partition| (place(partition), Offset::new(7));
    group.commit(Some(&who()), &[offset(0), offset(1)]).await.unwrap();
    let error = group.commit(Some(&who()), &[offset(0), offset(9)]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::PartitionNotFound));
}
