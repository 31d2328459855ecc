//! Replays the fuzz corpus of the target `batch`.

mod body;

use std::path::Path;

use bytes::Bytes;
use streamhouse_types::batch::{BatchLimits, Compression, OPENED_BYTES_MAX, Record, RecordBatch};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/batch");

#[test]
fn the_fuzz_corpus_is_judged_without_a_panic() {
    let files = std::fs::read_dir(CORPUS).expect("the corpus is in the repository");
    let mut replayed = 0;
    for file in files {
        let path = file.expect("the folder can be listed").path();
        body::run(&std::fs::read(&path).expect("the file can be read"));
        replayed += 1;
    }
    assert!(replayed >= 10, "{replayed} files were found");
}

/// The files `python-*` were written by kafka-python 3.0.12 with its own codecs.
#[test]
fn batches_of_another_client_are_read_in_every_compression() {
    let mut plain: Option<Vec<Record>> = None;
    for compression in Compression::ALL {
        let path = Path::new(CORPUS).join(format!("python-{compression}"));
        let bytes = Bytes::from(std::fs::read(path).expect("the file is in the repository"));
        let mut batch = RecordBatch::parse(bytes, &BatchLimits::default()).expect("it is sound");
        assert_eq!(batch.header().attributes.compression().expect("it was checked"), compression);
        batch.check_compressed(OPENED_BYTES_MAX).expect("its records are sound");
        let records: Vec<Record> =
            batch.records().expect("they open").collect::<Result<_, _>>().expect("they were checked");
        assert_eq!(records.len(), 40);
        assert_eq!(records[30].value.as_deref(), Some(&b"flight 30 from JFK to LAX"[..]));
        assert_eq!(records[30].headers[0].key, "source");
        assert_eq!(plain.get_or_insert_with(|| records.clone()), &records);
    }
}
