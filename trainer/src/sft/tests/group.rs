//! Several processes that train as one; here threads take their place.

use super::*;
use crate::distributed::{MeetingPoint, Ranks};
use crate::testing::free_port;

/// Runs `args` as so many ranks; what each of them came to.
pub(super) fn run_as(size: usize, args: &SftArgs) -> Vec<Result<Outcome>> {
    run_as_until(size, args, StopFlag::default)
}

/// As [`run_as`], each rank with a flag of its own.
pub(super) fn run_as_until(
    size: usize,
    args: &SftArgs,
    stop: fn() -> StopFlag,
) -> Vec<Result<Outcome>> {
    let meeting = MeetingPoint {
        host: "127.0.0.1".to_string(),
        port: free_port(),
    };
    let start = |rank: usize| {
        let mut args = args.clone();
        args.ranks = Some(Ranks::new((rank, size), rank, meeting.clone()).unwrap());
        args.group.time_limit_s = 60;
        // A pool of its own, as a process has: a rank that waits must not hold up another.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let run = move || run(&args, &stop(), &mut Progress::memory());
        std::thread::spawn(move || pool.unwrap().install(run))
    };
    let ranks: Vec<_> = (0..size).map(start).collect();
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}

/// Two and four ranks give the bits of one: weights, moments and losses; also when they go on where
/// one process has stopped.
#[test]
fn ranks_give_the_bits_of_one_process() {
    let setup = Setup::new(StoredDtype::Bf16);
    let flags: Vec<&str> = SMALL.to_vec();
    Setup::run(&setup.args("one", &flags)).0.unwrap();
    for size in [2, 4] {
        let out = format!("ranks{size}");
        let args = setup.args(&out, &flags);
        if size == 2 {
            let outcome = interrupt_after_epoch_one(args.clone());
            assert_eq!(outcome, Outcome::Interrupted);
        }
        for outcome in run_as(size, &args) {
            assert_eq!(outcome.unwrap(), Outcome::Finished);
        }
        for file in [
            "epoch_3/model.safetensors",
            "epoch_3/trainer_state/optimizer.safetensors",
            "losses.csv",
        ] {
            let read = |out: &str| std::fs::read(setup.path(out).join(file)).unwrap();
            assert!(read("one") == read(&out), "{size} ranks: {file} differs");
        }
        assert!(setup.path(&out).join("ranks/1/metrics.jsonl").exists());
    }
}

/// Three ranks share the work in an order of their own: the same curve to rounding.
#[test]
fn three_ranks_give_the_same_curve() {
    let setup = Setup::new(StoredDtype::F32);
    let flags: Vec<&str> = SMALL.to_vec();
    Setup::run(&setup.args("one", &flags)).0.unwrap();
    let args = setup.args("three", &flags);
    for outcome in run_as(3, &args) {
        assert_eq!(outcome.unwrap(), Outcome::Finished);
    }
    let losses = |out: &str| -> Vec<f64> {
        let text = std::fs::read_to_string(setup.path(out).join("losses.csv")).unwrap();
        let number = |line: &str| line.split(',').nth(1).unwrap().parse().unwrap();
        text.lines().skip(1).map(number).collect()
    };
    let (one, three) = (losses("one"), losses("three"));
    assert_eq!((one.len(), three.len()), (3, 3));
    for (a, b) in one.iter().zip(&three) {
        assert!((a - b).abs() < 1e-4 * a, "{one:?} {three:?}");
    }
}

/// Ranks with other settings do not come together: both say so, and nothing is written.
#[test]
fn ranks_with_other_settings_are_refused() {
    let setup = Setup::new(StoredDtype::F32);
    let meeting = MeetingPoint {
        host: "127.0.0.1".to_string(),
        port: free_port(),
    };
    let start = |rank: usize, lr: &str| {
        let mut args = setup.args("out", &["--lr", lr]);
        args.ranks = Some(Ranks::new((rank, 2), rank, meeting.clone()).unwrap());
        args.group.time_limit_s = 20;
        std::thread::spawn(move || Setup::run(&args).0)
    };
    let ranks = [start(0, "1e-3"), start(1, "2e-3")];
    for rank in ranks {
        assert!(rank.join().unwrap().is_err());
    }
    assert!(!setup.path("out/epoch_1").exists());
}
