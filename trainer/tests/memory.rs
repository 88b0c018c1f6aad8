//! Memory held after a step is the same after every step: nothing of a step outlives it.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use model::config::LlamaConfig;
use model::dtype::StoredDtype;
use trainer::config::Checkpointing;
use trainer::dataset::Examples;
use trainer::forward::Network;
use trainer::gradients::Gradients;
use trainer::init::random_weights;
use trainer::pack::pack;

/// Counts the bytes that are allocated and not yet freed.
struct Counting;

static HELD: AtomicIsize = AtomicIsize::new(0);

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn network() -> Network {
    let config = LlamaConfig {
        vocab_size: 64,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tie_word_embeddings: true,
        max_position_embeddings: 64,
        dtype: StoredDtype::F32,
        bos_token_id: None,
        eos_token_ids: vec![1],
        pad_token_id: None,
    };
    let weights = random_weights(&config, 1).expect("a valid config");
    Network::new(config, weights, Checkpointing::Auto).expect("weights of that config")
}

/// Twenty forward and backward passes hold what one does. One activation of this batch is over 3 kB;
/// thread pools may grow their own queues by less.
#[test]
fn steps_hold_no_memory() {
    let network = network();
    let mut examples = Examples::default();
    (0..4).for_each(|_| examples.push(&[3; 25], 1));
    let batches = pack(&[0, 1, 2, 3], &examples, 200);
    let mut gradients = Gradients::zeros(&network.config);
    let mut held = Vec::new();
    for _ in 0..20 {
        for batch in &batches {
            network
                .forward_backward(batch, 0.1, &mut gradients)
                .expect("a valid batch");
        }
        held.push(HELD.load(Ordering::Relaxed));
    }
    let growth = held[19] - held[4];
    assert!(growth < 3000, "bytes held after each step: {held:?}");
}
