//! The pieces of GPU memory that weights live in. One is live; where there is a second, a checkpoint is
//! loaded into it beside, and a swap only exchanges the two. Whoever holds a lease owns the arena; dropping
//! it gives the arena back.

use std::sync::{Arc, Mutex, PoisonError};

use cuda::Float;
use model::gpu::Arena;

/// An arena, and which of them it is, from 0.
type Numbered<A> = (usize, Arena<A>);

/// Arenas that nobody uses.
#[derive(Debug)]
pub(super) struct Arenas<A: Float> {
    free: Arc<Mutex<Vec<Numbered<A>>>>,
    count: usize,
}

/// An arena in use.
#[derive(Debug)]
pub(super) struct Lease<A: Float> {
    /// Always some, until it is dropped.
    arena: Option<Numbered<A>>,
    home: Arenas<A>,
}

impl<A: Float> Arenas<A> {
    pub(super) fn new(arenas: Vec<Arena<A>>) -> Self {
        let count = arenas.len();
        let numbered = arenas.into_iter().enumerate().collect();
        Self {
            free: Arc::new(Mutex::new(numbered)),
            count,
        }
    }

    /// How many there are, those in use included.
    pub(super) fn num_arenas(&self) -> usize {
        self.count
    }

    /// `None` where all are in use.
    pub(super) fn take(&self) -> Option<Lease<A>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let arena = free.pop()?;
        Some(Lease {
            arena: Some(arena),
            home: Self {
                free: Arc::clone(&self.free),
                count: self.count,
            },
        })
    }
}

impl<A: Float> Lease<A> {
    /// Which of the arenas it is, from 0.
    pub(super) fn index(&self) -> usize {
        self.held().0
    }

    pub(super) fn arena(&self) -> &Arena<A> {
        &self.held().1
    }

    pub(super) fn arena_mut(&mut self) -> &mut Arena<A> {
        let held = self.arena.as_mut().expect("held until it is dropped");
        &mut held.1
    }

    fn held(&self) -> &Numbered<A> {
        self.arena.as_ref().expect("held until it is dropped")
    }
}

impl<A: Float> Drop for Lease<A> {
    fn drop(&mut self) {
        if let Some(arena) = self.arena.take() {
            let mut free = self
                .home
                .free
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            free.push(arena);
        }
    }
}
