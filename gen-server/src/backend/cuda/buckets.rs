//! For which numbers of decoding sequences there are graphs. A step is padded to the next of them.

/// Blocks of a sequence that a graph has room for; steps with longer ones are launched kernel by kernel.
pub(super) const GRAPH_TABLE_LEN: usize = 128;

/// 1, 2, 4, then multiples of 8 up to 64, of 16 up to 256, of 32 beyond, up to `most`.
pub(crate) fn buckets(most: usize) -> Vec<usize> {
    let mut sizes = vec![1, 2, 4];
    sizes.extend((8..=64).step_by(8));
    sizes.extend((80..=256).step_by(16));
    sizes.extend((288..=most.max(288)).step_by(32));
    sizes.retain(|size| *size < most);
    sizes.push(most);
    sizes
}

/// The smallest of `buckets` that holds `count`.
pub(crate) fn bucket_for(buckets: &[usize], count: usize) -> Option<usize> {
    let index = buckets.partition_point(|size| *size < count);
    (index < buckets.len()).then_some(index)
}

/// Tokens or rows of a step without a graph: few different numbers, since each makes cublasLt choose anew.
pub(crate) fn padded(count: usize, most: usize) -> usize {
    let unit = if count <= 256 { 8 } else { 64 };
    count.next_multiple_of(unit).min(most.max(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_a_bucket_close_above_it() {
        for most in [1, 3, 6, 64, 100, 256, 300, 1024] {
            let buckets = buckets(most);
            assert!(
                buckets.is_sorted() && buckets.last() == Some(&most),
                "{buckets:?}"
            );
            for count in 1..=most {
                let size = buckets[bucket_for(&buckets, count).unwrap()];
                assert!(
                    size >= count && size <= (count + 31).max(2 * count),
                    "{count}: {size}"
                );
            }
            assert_eq!(bucket_for(&buckets, most + 1), None);
        }
    }

    #[test]
    fn tokens_are_padded_within_the_limit() {
        assert_eq!(padded(5, 512), 8);
        assert_eq!(padded(300, 512), 320);
        assert_eq!(padded(510, 511), 511);
    }
}
