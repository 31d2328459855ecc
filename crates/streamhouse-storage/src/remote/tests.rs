use super::*;

fn pieces(sizes: &[usize]) -> Vec<Bytes> {
    sizes.iter().map(|size| Bytes::from(vec![7; *size])).collect()
}

#[test]
fn small_pieces_are_gathered_and_large_ones_are_not_copied() {
    let input = pieces(&[10, 20, SMALL_PIECE, 30, GATHERED, 5]);
    let output = gather(&input);
    let sizes: Vec<usize> = output.iter().map(Bytes::len).collect();
    assert_eq!(sizes, [30, SMALL_PIECE, 30, GATHERED, 5]);
    assert_eq!(output[1].as_ptr(), input[2].as_ptr());
    let many = gather(&pieces(&[1_000; 100]));
    assert_eq!(many.iter().map(Bytes::len).sum::<usize>(), 100_000);
    assert_eq!(many.len(), 2);
}

#[test]
fn a_reply_is_cut_at_block_boundaries_whatever_its_chunks() {
    for chunk in [1, 3, 10, 100] {
        let bytes: Vec<u8> = (5..38).collect();
        let mut recut = Recut::new(5, 10, 33);
        for chunk in bytes.chunks(chunk) {
            recut.push(chunk).unwrap();
        }
        let pieces = recut.finish();
        let sizes: Vec<usize> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(sizes, [5, 10, 10, 8], "chunks of {chunk}");
        assert_eq!(pieces.concat(), bytes);
    }
}

#[test]
fn a_reply_that_is_too_long_is_refused() {
    let mut recut = Recut::new(0, 10, 5);
    assert!(matches!(recut.push(&[0; 6]), Err(BlobError::WrongLength { expected: 5, actual: 6 })));
}
