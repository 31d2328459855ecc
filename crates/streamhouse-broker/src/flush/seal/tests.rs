use std::time::Duration;

use streamhouse_storage::object::ObjectBuilder;
use streamhouse_types::{Offset, PartitionId, PartitionIndex, ProducerId, TopicId};
use tokio::sync::oneshot;

use super::super::entry::{Entry, Load, Reply, Waiter};
use super::*;
use crate::testing::{batch, large, produced};
use crate::{ByteBudget, Session};

fn partition(index: u32) -> PartitionId {
    PartitionId::new(TopicId::new(1), PartitionIndex::new(index))
}

async fn entry(batches: Vec<(u32, RecordBatch)>, expected: Vec<(u32, u64)>) -> Entry {
    let batches = batches.into_iter().map(|(index, batch)| (partition(index), batch)).collect();
    let expected =
        expected.into_iter().map(|(index, offset)| (partition(index), Offset::new(offset))).collect();
    let load = Load { batches, expected };
    let permit = ByteBudget::new(1).acquire(1).await;
    let session = Session::new(1, 0);
    let waiter = Waiter::new(&session, permit, Reply::Unit(oneshot::channel().0), &load, Duration::ZERO);
    Entry { load, waiter }
}

#[tokio::test]
async fn plain_batches_of_a_partition_share_a_row_and_others_do_not() {
    let id = ProducerId::new(7);
    let buffer = vec![
        entry(vec![(1, batch(&["b1"]))], vec![]).await,
        entry(vec![(0, batch(&["a1", "a2"]))], vec![]).await,
        entry(vec![(1, produced(id, 0, &["p"]))], vec![]).await,
        entry(vec![(1, batch(&["b2"]))], vec![]).await,
        entry(vec![(0, batch(&["a3"]))], vec![]).await,
    ];
    let sealed = seal(buffer);
    let units = units(&sealed.entries);
    let rows: Vec<_> = units.units.iter().map(|unit| &unit.rows[0]).collect();
    let shapes: Vec<_> =
        rows.iter().map(|row| (row.partition.index.get(), row.batches, row.records)).collect();
    assert_eq!(shapes, [(0, 2, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)]);
    assert_eq!(rows.iter().filter(|row| row.producer.is_some()).count(), 1);
    assert_eq!(units.owners, [0..2, 2..3, 3..4, 4..5]);
}

#[tokio::test]
async fn rows_name_the_places_that_the_object_has() {
    let buffer = vec![
        entry(vec![(2, large(50_000)), (0, batch(&["u"]))], vec![]).await,
        entry(vec![(0, batch(&["small"]))], vec![]).await,
        entry(vec![(0, large(40_000))], vec![]).await,
        entry(vec![(0, batch(&["small too"]))], vec![]).await,
    ];
    let bytes: Vec<_> = buffer
        .iter()
        .map(|entry| entry.load.batches.iter().map(|(_, b)| b.bytes().clone()).collect::<Vec<_>>())
        .collect();
    let sealed = seal(buffer);
    let mut builder = ObjectBuilder::new();
    let mut object = vec![0; usize::try_from(builder.end()).unwrap()];
    for extent in sealed.extents {
        object.extend(extent.pieces.concat());
        builder.push(extent);
    }
    assert_eq!(builder.end(), object.len() as u64);
    // The unit comes first, its batches in their own order, and each row covers exactly its batches.
    let order = [&bytes[0], &bytes[1], &bytes[2], &bytes[3]];
    for (entry, batches) in sealed.entries.iter().zip(order) {
        for (placed, batch) in entry.batches.iter().zip(batches) {
            let start = usize::try_from(placed.position).unwrap();
            assert_eq!(&object[start..start + placed.length() as usize], &batch[..]);
        }
    }
    let units = units(&sealed.entries).units;
    assert_eq!(units[0].rows.iter().map(|row| row.partition.index.get()).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(units[1].rows[0].batches, 3);
}

#[tokio::test]
async fn a_row_does_not_reach_over_what_was_taken_out() {
    let buffer = vec![
        entry(vec![(0, batch(&["a"]))], vec![]).await,
        entry(vec![(0, batch(&["gone"]))], vec![]).await,
        entry(vec![(0, batch(&["b"]))], vec![]).await,
    ];
    let mut sealed = seal(buffer);
    drop(sealed.entries.remove(1));
    assert_eq!(units(&sealed.entries).units.len(), 2);
}
