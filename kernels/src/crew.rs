//! The threads of a forward pass. A pass hands out some hundreds of small jobs, one after another
//! and microseconds apart, so what counts is how fast a job reaches the other threads: they wait
//! for it spinning, and go to sleep only when none has come for a while.
//!
//! Measured on two cores (Zen 5, example `bench`, `handover`): an empty job every 20 µs takes 6 µs
//! here and 26 µs through rayon; a decode step of a small model has 150 of them.
//!
//! Who takes part is decided by who comes in time: a job's tasks are taken from one counter, and a
//! thread that the system is running late on finds the job closed. Nobody waits for a sleeper.
#![expect(
    unsafe_code,
    reason = "a job is borrowed from its caller's stack and shared with the crew until it is closed"
)]

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// How long a thread without a job keeps looking for one. Longer than the gap between two steps of
/// a busy engine's forward pass, short enough not to show in a monitor of an idle one.
const SPIN: Duration = Duration::from_micros(100);
/// Looks at the gate between two looks at the clock.
const SPINS_PER_CLOCK: u32 = 32;
/// Looks of a caller that waits for its job's last tasks before it offers its core to others.
const SPINS_BEFORE_YIELD: u32 = 2_000;

/// Threads that work on one job at a time, the caller among them.
pub struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held by the caller whose job is being done.
    owner: Mutex<()>,
}

/// What the threads have in common.
struct Shared {
    gate: Gate,
    job: UnsafeCell<Job>,
    /// The next task that nobody has taken.
    next: AtomicUsize,
    stop: AtomicBool,
    /// A task panicked.
    panicked: AtomicBool,
    num_sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

/// A job as the threads see it: `run(data, i)` for every i below `num_tasks`.
#[derive(Clone, Copy)]
struct Job {
    data: *const (),
    run: unsafe fn(*const (), usize),
    num_tasks: usize,
}

// SAFETY: `job` is written only while the gate is closed with nobody inside, and read only inside;
// what it points to is `Sync` and outlives the opening (see `Crew::for_each`).
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl fmt::Debug for Crew {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Crew({} threads)", self.num_threads())
    }
}

impl Crew {
    /// A crew of `num_threads`, of which the caller of a job is one.
    pub fn new(num_threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            gate: Gate::default(),
            job: UnsafeCell::new(Job {
                data: std::ptr::null(),
                run: no_task,
                num_tasks: 0,
            }),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            num_sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut crew = Self {
            shared,
            threads: Vec::new(),
            owner: Mutex::new(()),
        };
        for index in 1..num_threads {
            let shared = Arc::clone(&crew.shared);
            let thread = std::thread::Builder::new().name(format!("crew-{index}"));
            crew.threads.push(thread.spawn(move || shared.work())?);
        }
        Ok(crew)
    }

    /// One thread: the caller's own.
    pub fn alone() -> Self {
        Self::new(1).expect("no thread is made")
    }

    /// Threads of a job, the caller's included.
    pub fn num_threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `task` with every number below `num_tasks`, each once, on whatever threads are free, and
    /// returns when all are done. On the caller's thread alone where the crew is at work for another
    /// caller, or for this one.
    ///
    /// # Panics
    /// When a task does.
    pub fn for_each<F: Fn(usize) + Sync>(&self, num_tasks: usize, task: F) {
        let worth_sharing = num_tasks > 1 && !self.threads.is_empty();
        let Some(owner) = worth_sharing.then(|| self.try_own()).flatten() else {
            (0..num_tasks).for_each(task);
            return;
        };
        let shared = &*self.shared;
        // SAFETY: we hold `owner`, so the gate is closed, and it was left with nobody inside.
        unsafe {
            *shared.job.get() = Job {
                data: (&raw const task).cast(),
                run: call::<F>,
                num_tasks,
            };
        }
        shared.next.store(0, Ordering::Relaxed);
        shared.open();
        let mine = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(&task)));
        if mine.is_err() {
            shared.next.store(num_tasks, Ordering::Relaxed);
        }
        // Only when nobody is inside any more may `task`, which they borrow, end.
        shared.gate.close_and_wait();
        let theirs = shared.panicked.swap(false, Ordering::Relaxed);
        drop(owner);
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        assert!(!theirs, "a task panicked on another thread of the crew");
    }

    fn try_own(&self) -> Option<MutexGuard<'_, ()>> {
        match self.owner.try_lock() {
            Ok(owner) => Some(owner),
            // A task panicked, after which its job was ended in order.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Calls `f(i, part i)` for consecutive parts of `values`, `part_len` long but for the last.
    pub fn for_each_part<T: Send>(
        &self,
        values: &mut [T],
        part_len: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (len, start) = (values.len(), Shareable(values.as_mut_ptr()));
        self.for_each(len.div_ceil(part_len.max(1)), |i| {
            let first = i * part_len;
            // SAFETY: the parts lie in `values`, which is borrowed for us, and do not overlap: each
            // number is handed out once.
            let part = unsafe {
                std::slice::from_raw_parts_mut(start.get().add(first), part_len.min(len - first))
            };
            f(i, part);
        });
    }
}

/// A pointer that several threads may hold; each use says why it is sound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shareable<T>(pub(crate) *mut T);

impl<T> Shareable<T> {
    /// A method, so that closures capture the whole and not the pointer.
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: whoever writes through the pointer vouches that no two threads touch one value.
unsafe impl<T: Send> Sync for Shareable<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shareable<T> {}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_sleepers();
        for thread in self.threads.drain(..) {
            // A thread that panicked outside a task has nothing left to give back.
            let _ = thread.join();
        }
    }
}

/// # Safety
/// `data` must point to a live `F`.
unsafe fn call<F: Fn(usize)>(data: *const (), index: usize) {
    // SAFETY: the caller's promise.
    unsafe { (*data.cast::<F>())(index) };
}

/// # Safety
/// None asked for; the type is that of [`Job::run`].
unsafe fn no_task(_: *const (), _: usize) {}

impl Shared {
    fn open(&self) {
        self.gate.open();
        // With the fence in `sleep`: either we see the sleeper, or it sees the open gate.
        fence(Ordering::SeqCst);
        if self.num_sleepers.load(Ordering::Relaxed) > 0 {
            self.wake_sleepers();
        }
    }

    fn wake_sleepers(&self) {
        drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }

    /// The life of a thread.
    fn work(&self) {
        let mut last_seen = 0;
        while let Some(opening) = self.next_opening(last_seen) {
            last_seen = opening;
            if !self.gate.try_enter(opening) {
                continue;
            }
            // SAFETY: we are inside, so the job is there and its caller waits for us.
            let job = unsafe { *self.job.get() };
            let done = catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: as above: what `data` points to is alive.
                self.take_tasks_of(job.num_tasks, |i| unsafe { (job.run)(job.data, i) });
            }));
            if done.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
                self.next.store(job.num_tasks, Ordering::Relaxed);
            }
            self.gate.leave();
        }
    }

    fn take_tasks(&self, task: impl Fn(usize)) {
        // SAFETY: only the owner calls this, who wrote the job; nobody writes while it is open.
        let num_tasks = unsafe { (*self.job.get()).num_tasks };
        self.take_tasks_of(num_tasks, task);
    }

    fn take_tasks_of(&self, num_tasks: usize, task: impl Fn(usize)) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= num_tasks {
                return;
            }
            task(index);
        }
    }

    /// Waits for an opening after `last_seen`; `None` is the end.
    fn next_opening(&self, last_seen: u64) -> Option<u64> {
        loop {
            let begin = Instant::now();
            while begin.elapsed() < SPIN {
                for _ in 0..SPINS_PER_CLOCK {
                    if self.stop.load(Ordering::Relaxed) {
                        return None;
                    }
                    if let Some(opening) = self.gate.opening_after(last_seen) {
                        return Some(opening);
                    }
                    std::hint::spin_loop();
                }
            }
            self.sleep_until_woken(last_seen);
        }
    }

    fn sleep_until_woken(&self, last_seen: u64) {
        let guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.num_sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let nothing_yet =
            |()| self.gate.opening_after(last_seen).is_none() && !self.stop.load(Ordering::SeqCst);
        let woken = self.wake.wait_while(guard, |()| nothing_yet(()));
        self.num_sleepers.fetch_sub(1, Ordering::Relaxed);
        drop(woken);
    }
}

/// Who is inside a job: a number of openings, whether it is open, and how many threads are inside,
/// in one word, so that entering and closing exclude each other.
#[derive(Default)]
struct Gate(AtomicU64);

const INSIDE: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const OPENING: u64 = 1 << 17;

impl Gate {
    /// Only for the owner, after `close_and_wait`.
    fn open(&self) {
        let opening = self.0.load(Ordering::Relaxed) / OPENING + 1;
        // Release: who enters sees the job.
        self.0.store(opening * OPENING + OPEN, Ordering::Release);
    }

    fn opening_after(&self, last_seen: u64) -> Option<u64> {
        let word = self.0.load(Ordering::Relaxed);
        let opening = word / OPENING;
        (word & OPEN != 0 && opening != last_seen).then_some(opening)
    }

    fn try_enter(&self, opening: u64) -> bool {
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| {
                (word & OPEN != 0 && word / OPENING == opening).then_some(word + 1)
            })
            .is_ok()
    }

    fn leave(&self) {
        // Release: the owner sees what was written inside.
        self.0.fetch_sub(1, Ordering::Release);
    }

    fn close_and_wait(&self) {
        self.0.fetch_and(!OPEN, Ordering::Relaxed);
        let mut spins = 0;
        while self.0.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests;
