//! Memory held after a step is the same after every step: nothing of a step outlives it.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use model::config::LlamaConfig;
use model::dtype::StoredDtype;
use trainer::config::{BaseFormat, Method, MomentsDtype, OptimizerConfig, Precision};
use trainer::dataset::Examples;
use trainer::distributed::Group;
use trainer::forward::{Network, NetworkOptions, tensors_of};
use trainer::init::random_weights;
use trainer::lora::{LoraConfig, LoraTarget};
use trainer::optimizer::Optimizer;
use trainer::schedule::{Schedule, ScheduleKind};
use trainer::train::engine::{StepGoal, Update};
use trainer::train::lanes::{Lanes, deal};

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

fn network(method: Method, precision: Precision) -> Network {
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
    let tensors = tensors_of(&config, &weights);
    let options = NetworkOptions {
        method,
        precision,
        ..NetworkOptions::default()
    };
    Network::new(config.clone(), tensors, options).expect("weights of that config")
}

/// Twenty optimizer steps over batches of different shapes hold what one does, for every kind of weight
/// and moment. One activation of these batches is over 3 kB; thread pools may grow their own queues by
/// less.
#[test]
fn steps_hold_no_memory() {
    let lora = Method::Lora(LoraConfig {
        rank: 4,
        alpha: 8.0,
        dropout: 0.1,
        targets: LoraTarget::ALL.to_vec(),
        base: BaseFormat::Int8,
    });
    for (method, precision, moments) in [
        (Method::Full, Precision::F32, MomentsDtype::F32),
        (Method::Full, Precision::Bf16Weights, MomentsDtype::Int8),
        (lora, Precision::Bf16, MomentsDtype::Bf16),
    ] {
        let network = network(method.clone(), precision);
        let mut optimizer = Optimizer::new(optimizer_config(moments), 1, &network.parameters);
        let mut lanes = Lanes::new(&network, &Group::Single);
        let mut examples = Examples::default();
        for length in [25, 9, 17, 30] {
            examples.push(&vec![3; length], 1);
        }
        let orders = [[0, 1, 2, 3], [2, 2, 1, 1], [3, 0, 3, 0]];
        let mut held = Vec::new();
        for step in 0..24 {
            let goal = StepGoal {
                steps: step as u64,
                grad_scale: 0.01,
            };
            let batches = deal(&orders[step % 3], &examples, (lanes.count(), 40));
            lanes
                .forward_backward(&network, &batches, goal, &mut Group::Single)
                .expect("valid batches");
            let update = Update {
                number: step as u64 + 1,
                lr: 1e-4,
                grad_norm: lanes.gradients().global_norm(),
            };
            optimizer
                .step(&network.parameters, lanes.gradients(), &update)
                .expect("a step");
            drop(batches);
            held.push(HELD.load(Ordering::Relaxed));
        }
        let growth = held[23] - held[5];
        assert!(
            growth < 3000,
            "{method:?}: bytes held after each step: {held:?}"
        );
    }
}

fn optimizer_config(moments: MomentsDtype) -> OptimizerConfig {
    OptimizerConfig {
        schedule: Schedule {
            kind: ScheduleKind::Constant,
            peak_lr: 1e-4,
            warmup_steps: 0,
            min_lr_ratio: 0.0,
        },
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        max_grad_norm: 1.0,
        moments,
    }
}
