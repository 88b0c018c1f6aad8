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

fn content(name: u32, tokens: &[u32]) -> Content {
    let parent = BlockHash::root(1);
    Content {
        hash: parent.child(&[name]),
        parent,
        tokens: tokens.into(),
    }
}

fn find(pool: &BlockPool, content: &Content) -> Option<BlockId> {
    pool.find(content.hash, content.parent, &content.tokens)
}

/// A block is found as long as nobody took it for something else; used again it is safe.
#[test]
fn content_outlives_its_owner() {
    let mut pool = BlockPool::new(3);
    let (mut first, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
    pool.allocate(&mut first, 1).unwrap();
    let known = content(1, &[5, 6]);
    pool.publish(first[0], known.clone());
    pool.release(&mut first);
    assert_eq!((pool.num_free(), pool.num_cached()), (3, 1));
    let hit = find(&pool, &known).unwrap();
    pool.share(&mut second, hit);
    pool.share(&mut third, hit);
    assert_eq!((pool.num_used(), pool.num_cached()), (1, 0));
    assert_eq!(pool.allocate(&mut first, 3), Err(OutOfBlocks));
    pool.release(&mut second);
    pool.release(&mut third);
    pool.allocate(&mut first, 3).unwrap();
    assert_eq!(find(&pool, &known), None);
}

/// The name alone is not believed.
#[test]
fn a_name_that_lies_is_no_hit() {
    let mut pool = BlockPool::new(2);
    let mut table = Vec::new();
    pool.allocate(&mut table, 1).unwrap();
    let known = content(1, &[5, 6]);
    pool.publish(table[0], known.clone());
    let same_name = |tokens: &[u32], parent| pool.find(known.hash, parent, tokens);
    assert!(same_name(&[5, 6], known.parent).is_some());
    assert_eq!(same_name(&[5, 7], known.parent), None);
    assert_eq!(same_name(&[5, 6], BlockHash::root(2)), None);
}

/// Blocks that hold nothing are taken before those that hold something, and of those the one that was
/// free longest; of one table the tail goes before the head.
#[test]
fn what_was_used_last_is_forgotten_last() {
    let mut pool = BlockPool::new(5);
    let (mut old, mut new) = (Vec::new(), Vec::new());
    pool.allocate(&mut old, 2).unwrap();
    pool.allocate(&mut new, 2).unwrap();
    let names: Vec<Content> = (0..4).map(|name| content(name, &[name])).collect();
    for (&block, name) in old.iter().chain(&new).zip(&names) {
        pool.publish(block, name.clone());
    }
    pool.release(&mut old);
    pool.release(&mut new);
    let mut taken = Vec::new();
    let mut forgotten = Vec::new();
    for _ in 0..5 {
        pool.allocate(&mut taken, 1).unwrap();
        forgotten.push(
            names
                .iter()
                .filter(|name| find(&pool, name).is_none())
                .count(),
        );
    }
    assert_eq!(forgotten, [0, 1, 2, 3, 4]);
    assert_eq!(taken[1..], [BlockId(1), BlockId(0), BlockId(3), BlockId(2)]);
}
