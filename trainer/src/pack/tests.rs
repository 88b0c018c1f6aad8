use super::*;

/// Examples of these numbers of ids, labels from the second on.
fn examples(lengths: &[usize]) -> Examples {
    let mut examples = Examples::default();
    for &length in lengths {
        let ids: Vec<u32> = (0..length as u32).collect();
        examples.push(&ids, 1);
    }
    examples
}

/// Rows and targets are one apart, positions restart, and prompts carry no label.
#[test]
fn labels_are_shifted_once() {
    let mut examples = Examples::default();
    examples.push(&[10, 11, 12, 13], 2);
    examples.push(&[20, 21, 22], 1);
    examples.push_labelled(&[30, 31, 32, 33], &[1..2, 3..4]);
    let batches = pack(&[0, 2, 1], &examples, 100);
    assert_eq!(
        batches,
        [MicroBatch {
            token_ids: vec![10, 11, 12, 30, 31, 32, 20, 21],
            positions: vec![0, 1, 2, 0, 1, 2, 0, 1],
            segment_bounds: vec![0, 3, 6, 8],
            label_rows: vec![1, 2, 3, 5, 6, 7],
            targets: vec![12, 13, 31, 33, 21, 22],
        }]
    );
}

/// Micro-batches keep to the budget, nothing is lost, and the fullest that fits is taken.
#[test]
fn packing_is_best_fit() {
    let examples = examples(&[4, 7, 3, 8, 101]);
    let batches = pack(&[0, 1, 2, 3, 4], &examples, 10);
    let sizes: Vec<usize> = batches.iter().map(MicroBatch::num_tokens).collect();
    // 100 alone over the budget; 7+3; 6+2.
    assert_eq!(sizes, [100, 10, 8]);
    let labels: usize = batches.iter().map(MicroBatch::num_labels).sum();
    assert_eq!(labels, examples.num_inputs());
}

/// Windows hold a number of examples, or tokens; the last takes what is left.
#[test]
fn windows_cover_the_epoch() {
    let examples = examples(&[4, 4, 4, 4, 4]);
    let order = [4, 3, 2, 1, 0];
    assert_eq!(
        windows(&order, &examples, Window::Examples(2)),
        [0..2, 2..4, 4..5]
    );
    assert_eq!(windows(&order, &examples, Window::Tokens(7)), [0..3, 3..5]);
    assert!(windows(&[], &examples, Window::Tokens(7)).is_empty());
}
