//! The pool against a naive model, from seeds.

use super::*;
use crate::engine::sampler::mix;

/// Free and owned blocks always add up, an allocation is whole or nothing, and no block is handed out
/// twice: 20,000 random events against a list of owners.
#[test]
fn pool_agrees_with_a_naive_model() {
    for seed in 0..8 {
        run_history(seed, 2_500);
    }
}

fn run_history(seed: u64, num_events: u64) {
    let num_blocks = 1 + (mix(seed) % 40) as u32;
    let mut pool = BlockPool::new(num_blocks);
    let mut owners: Vec<Option<usize>> = vec![None; num_blocks as usize];
    let mut tables: Vec<Vec<BlockId>> = vec![Vec::new(); 6];
    for event in 0..num_events {
        let random = mix(seed << 32 | event);
        let table = (random % 6) as usize;
        let context = format!("seed {seed}, event {event}");
        if (random >> 8).is_multiple_of(4) {
            for block in &tables[table] {
                owners[block.0 as usize] = None;
            }
            pool.release(&mut tables[table]);
            assert!(tables[table].is_empty(), "{context}");
        } else {
            let num_wanted = (random >> 16) as usize % 7;
            let num_free = owners.iter().filter(|owner| owner.is_none()).count();
            let num_before = tables[table].len();
            let result = pool.allocate(&mut tables[table], num_wanted);
            assert_eq!(result.is_ok(), num_wanted <= num_free, "{context}");
            for block in &tables[table][num_before..] {
                let owner = owners[block.0 as usize].replace(table);
                assert_eq!(owner, None, "{context}: {block:?} was owned");
            }
        }
        let num_free = owners.iter().filter(|owner| owner.is_none()).count();
        assert_eq!(pool.num_free(), num_free, "{context}");
        assert_eq!(
            pool.num_used() + pool.num_free(),
            pool.num_total(),
            "{context}"
        );
    }
}

/// What was freed last is taken first.
#[test]
fn freed_blocks_are_taken_again_in_order() {
    let mut pool = BlockPool::new(8);
    let mut table = Vec::new();
    pool.allocate(&mut table, 3).unwrap();
    assert_eq!(table, [BlockId(0), BlockId(1), BlockId(2)]);
    pool.release(&mut table);
    pool.allocate(&mut table, 2).unwrap();
    assert_eq!(table, [BlockId(0), BlockId(1)]);
}
