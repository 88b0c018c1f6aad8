use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Crew;

/// Every task is done once, in thousands of jobs one after another, with any number of threads.
#[test]
fn every_task_once() {
    for num_threads in [1, 2, 5] {
        let crew = Crew::new(num_threads).unwrap();
        assert_eq!(crew.num_threads(), num_threads);
        for round in 0..3000 {
            let num_tasks = round % 9;
            let counts: Vec<AtomicUsize> = (0..num_tasks).map(|_| AtomicUsize::new(0)).collect();
            crew.for_each(num_tasks, |i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|n| n.load(Ordering::Relaxed) == 1));
        }
    }
}

/// What the tasks wrote is there when the call returns.
#[test]
fn parts_are_written() {
    let crew = Crew::new(3).unwrap();
    for len in [0, 1, 7, 100] {
        let mut values = vec![0; len];
        crew.for_each_part(&mut values, 7, |part, values| {
            for (i, value) in values.iter_mut().enumerate() {
                *value = 7 * part + i + 1;
            }
        });
        assert!(values.iter().enumerate().all(|(i, value)| *value == i + 1));
    }
}

/// Sleeping threads are woken for a job, or the job is done without them; it never hangs.
#[test]
fn jobs_after_a_pause() {
    let crew = Crew::new(3).unwrap();
    for _ in 0..20 {
        while crew.shared.num_sleepers.load(Ordering::Relaxed) < 2 {
            std::thread::yield_now();
        }
        let sum = AtomicUsize::new(0);
        crew.for_each(10, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }
}

/// Two callers at once, and a job inside a job, are done all the same.
#[test]
fn several_callers_and_nested_jobs() {
    let crew = Crew::new(2).unwrap();
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    crew.for_each(4, |_| {
                        crew.for_each(3, |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 3 * 200 * 12);
}

/// A task's panic reaches the caller, and the crew lives on.
#[test]
fn panics_reach_the_caller() {
    let crew = Crew::new(2).unwrap();
    for _ in 0..50 {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            crew.for_each(8, |i| assert!(i != 5, "task five"));
        }));
        assert!(outcome.is_err());
    }
    let sum = AtomicUsize::new(0);
    crew.for_each(8, |i| {
        sum.fetch_add(i, Ordering::Relaxed);
    });
    assert_eq!(sum.into_inner(), 28);
}
