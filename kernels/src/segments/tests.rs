use super::Segments;

/// Lengths and running sums say the same.
#[test]
fn lengths_and_running_sums_agree() {
    let segments = Segments::from_lengths(&[3, 0, 2]);
    assert_eq!(segments, Segments::from_cu_seqlens(&[0, 3, 3, 5]).unwrap());
    assert_eq!(segments.ranges().collect::<Vec<_>>(), [0..3, 3..3, 3..5]);
    assert_eq!((segments.len(), segments.num_tokens()), (3, 5));
    assert!(Segments::from_lengths(&[]).is_empty());
}

/// Sums that fall, or do not begin with 0, are refused.
#[test]
fn broken_running_sums_are_errors() {
    for broken in [&[] as &[u32], &[1, 2], &[0, 3, 2]] {
        assert!(Segments::from_cu_seqlens(broken).is_err(), "{broken:?}");
    }
}
