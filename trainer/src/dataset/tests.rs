use super::*;

/// The flat store gives back what was put in: ids and label ranges.
#[test]
fn examples_round_trip() {
    let mut examples = Examples::default();
    examples.push(&[1, 2, 3], 1);
    examples.push_labelled(&[4, 5, 6, 7, 8], &[1..2, 3..5]);
    examples.push(&[9, 10], 1);
    assert_eq!(examples.len(), 3);
    assert_eq!(examples.get(1).ids, [4, 5, 6, 7, 8]);
    assert_eq!(examples.get(1).labels, [1..2, 3..5]);
    assert_eq!(examples.get(2).labels, std::slice::from_ref(&(1..2)));
    let labels: Vec<usize> = examples
        .iter()
        .map(|example| example.num_labels())
        .collect();
    assert_eq!(labels, [2, 3, 1]);
    assert_eq!(examples.num_inputs(), 2 + 4 + 1);
}

/// The first token is never a label.
#[test]
#[should_panic(expected = "the first token cannot be a label")]
fn first_token_is_no_label() {
    Examples::default().push(&[1, 2], 0);
}
