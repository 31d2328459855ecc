//! What the fuzz target `raft_log_record` does with each input. The tests replay its corpus.

use bytes::Bytes;

use super::frame::{self, Record};

/// Judges the bytes as a frame of the log, and once more as the body of a frame whose checksum is right, so that what
/// lies behind it is reached too. Panics only when this crate is wrong.
pub fn judge_log_record(data: &[u8]) {
    judge(&Bytes::copy_from_slice(data));
    judge(&sealed(1, |to| to.extend_from_slice(data)));
}

/// What reads as records is the same records when it is written and read again.
fn judge(bytes: &Bytes) {
    let Some(frame) = frame::decode(bytes) else { return };
    assert!(frame.length() <= bytes.len(), "a frame lies inside the bytes");
    let Ok(records) = frame.records() else { return };
    let again = sealed(frame.sequence, |to| records.iter().for_each(|(_, record)| record.put(to)));
    let frame = frame::decode(&again).expect("it was sealed here");
    let strip = |(_, record)| record;
    let read: Vec<Record> = frame.records().expect("they were written here").into_iter().map(strip).collect();
    assert_eq!(read, records.into_iter().map(strip).collect::<Vec<_>>());
}

fn sealed(sequence: u64, body: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = Vec::new();
    frame::begin(&mut buffer);
    body(&mut buffer);
    frame::finish(&mut buffer, sequence);
    Bytes::from(buffer)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use openraft::EntryPayload;

    use super::super::frame::{SegmentHeader, Standing};
    use super::*;
    use crate::types::{Entry, LoggedCommand, Vote, log_id};

    const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/raft_log_record");

    #[test]
    fn the_fuzz_corpus_is_judged_without_a_panic() {
        let mut replayed = 0;
        for file in std::fs::read_dir(CORPUS).expect("the corpus is in the repository") {
            let path = file.expect("the folder can be listed").path();
            judge_log_record(&std::fs::read(&path).expect("the file can be read"));
            replayed += 1;
        }
        assert!(replayed >= 5, "{replayed} files were found");
    }

    fn seeds() -> [(&'static str, Vec<Record>); 3] {
        let standing = Standing {
            last: Some(log_id(3, 4)),
            purged: None,
            committed: Some(log_id(3, 3)),
            vote: Some(Vote::new_committed(3, 1)),
        };
        let entry = |index, payload| Record::Entry(Entry { log_id: log_id(3, index), payload });
        let tick = Bytes::from_static(&[1, 1, 3, 0x80, 0x90, 0xa0, 0x01]);
        [
            ("v1-header", vec![Record::Segment(SegmentHeader { node: 1, number: 2, standing })]),
            (
                "v1-entries",
                vec![
                    entry(5, EntryPayload::Blank),
                    entry(6, EntryPayload::Normal(LoggedCommand::from_bytes(tick))),
                ],
            ),
            (
                "v1-marks",
                vec![
                    Record::Vote(Vote::new(4, 2)),
                    Record::Truncate(Some(log_id(3, 5))),
                    Record::Purge(log_id(3, 4)),
                    Record::Committed(log_id(3, 5)),
                ],
            ),
        ]
    }

    /// What was written once must be read for ever; a new version of the format gets seeds of its own.
    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "a test has no settings; the variable only says to write the seeds"
    )]
    fn records_that_were_written_before_are_still_written_and_read_alike() {
        for (name, records) in seeds() {
            let bytes = sealed(7, |to| records.iter().for_each(|record| record.put(to)));
            let path = Path::new(CORPUS).join(name);
            if std::env::var("UPDATE_CORPUS").is_ok() {
                std::fs::write(&path, &bytes).expect("the seed can be written");
            }
            let stored = Bytes::from(std::fs::read(&path).expect("the seed is in the repository"));
            let read =
                frame::decode(&stored).expect("its checksum holds").records().expect("they are records");
            assert_eq!(read.into_iter().map(|(_, record)| record).collect::<Vec<_>>(), records, "{name}");
            assert!(stored == bytes, "{name} would be written differently today");
        }
    }
}
