//! Splitting rows among threads: how many rows make a task worth its hand-over.

/// Elements below which a task is too small to hand to another thread: about 10 µs of work at one
/// cycle per element.
const MIN_TASK_ELEMENTS: usize = 1 << 15;

/// Rows of `row_len` elements in one task; never zero. Depends on the shape only, never on the
/// number of threads, so that sums over tasks come out the same on any machine.
pub(crate) fn rows_per_task(row_len: usize) -> usize {
    MIN_TASK_ELEMENTS.div_ceil(row_len.max(1))
}
