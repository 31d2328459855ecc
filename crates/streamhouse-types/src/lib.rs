//! The nouns of StreamHouse: ids, offsets, record batches, error codes. No async, no I/O.
