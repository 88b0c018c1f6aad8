//! The pieces of GPU memory that weights live in. One is live; where there is a second, a checkpoint is
//! loaded into it beside, and a swap only exchanges the two. Whoever holds a lease owns the arena; dropping
//! it gives the arena back.

use std::sync::{Arc, Mutex, PoisonError};

use model::gpu::Arena;

/// Arenas that nobody uses.
#[derive(Debug, Clone)]
pub(super) struct Arenas {
    free: Arc<Mutex<Vec<(usize, Arena)>>>,
    count: usize,
}

/// An arena in use.
#[derive(Debug)]
pub(super) struct Lease {
    /// Always some, until it is dropped.
    arena: Option<(usize, Arena)>,
    home: Arenas,
}

impl Arenas {
    pub(super) fn new(arenas: Vec<Arena>) -> Self {
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
    pub(super) fn take(&self) -> Option<Lease> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let arena = free.pop()?;
        Some(Lease {
            arena: Some(arena),
            home: self.clone(),
        })
    }
}

impl Lease {
    /// Which of the arenas it is, from 0.
    pub(super) fn index(&self) -> usize {
        self.held().0
    }

    pub(super) fn arena(&self) -> &Arena {
        &self.held().1
    }

    pub(super) fn arena_mut(&mut self) -> &mut Arena {
        let held = self.arena.as_mut().expect("held until it is dropped");
        &mut held.1
    }

    fn held(&self) -> &(usize, Arena) {
        self.arena.as_ref().expect("held until it is dropped")
    }
}

impl Drop for Lease {
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
