//! Grids and blocks.

use cudarc::driver::LaunchConfig;

/// A thread for each of `num_items`, in blocks of 256.
pub(crate) fn thread_each(num_items: usize) -> LaunchConfig {
    blocks(num_items.div_ceil(256), 256)
}

/// `num_blocks` blocks of `num_threads`.
pub(crate) fn blocks(num_blocks: usize, num_threads: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (num_blocks as u32, 1, 1),
        block_dim: (num_threads, 1, 1),
        shared_mem_bytes: 0,
    }
}
