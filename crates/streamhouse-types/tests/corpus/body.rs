//! What the fuzz target `batch` does with each input.

use bytes::Bytes;
use streamhouse_types::batch::{
    BatchBuilder, BatchLimits, Compression, HEADER_BYTES, OPENED_BYTES_MAX, Record, RecordBatch,
};

/// Judges the bytes as a producer's batch, as a run read from the log, and once more with length, magic and CRC put
/// right, so that what lies behind the CRC is reached too.
pub(crate) fn run(data: &[u8]) {
    judge(Bytes::copy_from_slice(data));
    if data.len() < HEADER_BYTES {
        return;
    }
    let mut sealed = data.to_vec();
    let length = u32::try_from(data.len() - 12).unwrap_or(u32::MAX);
    sealed[8..12].copy_from_slice(&length.to_be_bytes());
    sealed[16] = 2;
    let crc = crc_fast::crc32_iscsi(&sealed[21..]);
    sealed[17..21].copy_from_slice(&crc.to_be_bytes());
    judge(Bytes::from(sealed));
}

fn judge(bytes: Bytes) {
    if let Ok(mut batch) = RecordBatch::parse(bytes.clone(), &BatchLimits::default()) {
        taken(&mut batch);
    }
    let mut run = bytes;
    let mut left = run.len();
    while let Ok(Some(batch)) = RecordBatch::split_first(&mut run, &BatchLimits::MAX) {
        assert!(run.len() < left, "a batch has bytes");
        left = run.len();
        if let Ok(records) = batch.records() {
            records.for_each(drop);
        }
    }
    assert_eq!(run.len(), left, "what is refused stays");
}

/// What was found sound can be read, and written again.
fn taken(batch: &mut RecordBatch) {
    let header = batch.header();
    assert_eq!(header.length_bytes as usize, batch.bytes().len());
    if batch.check_compressed(OPENED_BYTES_MAX).is_err() {
        let compression = header.attributes.compression().expect("it was checked");
        assert_ne!(compression, Compression::None, "uncompressed records were walked over");
        return;
    }
    let records: Vec<Record> =
        batch.records().expect("they were opened").collect::<Result<_, _>>().expect("they were walked over");
    assert_eq!(records.len(), header.record_count as usize);
    let mut builder = BatchBuilder::new(Compression::None);
    for record in &records {
        builder.push(&record.as_record_ref()).expect("it was taken before");
    }
    let copy = RecordBatch::parse(builder.build(), &BatchLimits::MAX).expect("it was built here");
    let again: Vec<Record> =
        copy.records().expect("not compressed").map(|record| record.expect("sound")).collect();
    assert_eq!(again, records);
}
