//! Ranks as processes of their own, told apart by the environment as a launcher sets it.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsStr;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use trainer::cli::ranks;
use trainer::distributed::{Backend, Group, GroupError, GroupSettings};

/// What a child does after a first sum; in its environment, since its arguments are the test
/// harness's.
const ACT: &str = "TRAINER_TEST_ACT";

fn connect(run: &str) -> Result<Group, GroupError> {
    let settings = ranks::from_environment()?.map(|ranks| GroupSettings {
        ranks,
        gpu: 0,
        run: run.to_string(),
        time_limit: Duration::from_secs(20),
        backend: Backend::Tcp,
    });
    Group::connect(settings.as_ref())
}

/// Not a test but the child's part; without the environment of one it does nothing.
#[test]
fn child() {
    let Some(act) = std::env::var_os(ACT) else {
        return;
    };
    let run = if act == "other run" {
        "another"
    } else {
        "a run"
    };
    match child_part(run, &act) {
        Ok(line) => eprintln!("SUM {line}"),
        Err(error) => eprintln!("ERROR {error}"),
    }
}

/// Two sums, or an end between them: then what the first has on its way may be lost, too.
fn child_part(run: &str, act: &OsStr) -> Result<String, GroupError> {
    let mut group = connect(run)?;
    let mut values: Vec<f32> = (0..60_000u16)
        .map(|at| f32::from(at) / 3.0 + group.rank() as f32)
        .collect();
    group.all_reduce_sum(&mut values)?;
    if act == "die" {
        std::process::abort();
    }
    group.all_reduce_sum(&mut values)?;
    Ok(format!("{} {:08x}", group.size(), digest(&values)))
}

fn digest(values: &[f32]) -> u32 {
    let mix = |sum: u32, value: &f32| (sum ^ value.to_bits()).wrapping_mul(0x0100_0193);
    values.iter().fold(0x811c_9dc5, mix)
}

fn start(act: &str, names: &[(&str, String)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(ACT, act)
        .envs(names.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A port that nobody listens at, below those that the system hands out by itself: nothing else here
/// gets it before it is used.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(64);
    let ports = std::iter::repeat_with(|| first.wrapping_add(NEXT.fetch_add(1, Relaxed)) % 12_000);
    let mut ports = ports.map(|port| 20_000 + port as u16);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(free).unwrap()
}

/// A line of each child, the one that begins with SUM or ERROR.
fn run(acts: &[&str], names: impl Fn(usize) -> Vec<(&'static str, String)>) -> Vec<String> {
    let each = acts.iter().enumerate();
    let children: Vec<Child> = each.map(|(rank, act)| start(act, &names(rank))).collect();
    let line = |output: Output| {
        let text = String::from_utf8(output.stderr).unwrap();
        let found = text
            .lines()
            .find(|line| line.starts_with("SUM") || line.starts_with("ERROR"));
        found.unwrap_or_default().to_string()
    };
    let ends = children.into_iter().map(Child::wait_with_output);
    ends.map(|output| line(output.unwrap())).collect()
}

fn torchrun(size: usize) -> impl Fn(usize) -> Vec<(&'static str, String)> {
    let port = free_port();
    move |rank| {
        vec![
            ("RANK", rank.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            ("WORLD_SIZE", size.to_string()),
            ("MASTER_ADDR", "localhost".to_string()),
            ("MASTER_PORT", port.to_string()),
        ]
    }
}

/// Processes with torchrun's names, and with SLURM's, have one sum.
#[test]
fn processes_have_one_sum() {
    for size in [1, 2, 4, 5] {
        let found = run(&vec!["sum"; size], torchrun(size));
        assert!(found[0].starts_with(&format!("SUM {size} ")), "{found:?}");
        assert!(found.iter().all(|it| *it == found[0]), "{found:?}");

        let port = free_port().to_string();
        let same = run(&vec!["sum"; size], |rank| {
            vec![
                ("SLURM_PROCID", rank.to_string()),
                ("SLURM_LOCALID", rank.to_string()),
                ("SLURM_STEP_NUM_TASKS", size.to_string()),
                ("SLURM_JOB_NODELIST", "localhost".to_string()),
                ("MASTER_PORT", port.clone()),
            ]
        });
        assert_eq!(same, found);
    }
}

/// A process that dies in the middle of a run is named by all others.
#[test]
fn a_dead_process_is_named() {
    let found = run(&["sum", "sum", "die", "sum"], torchrun(4));
    for rank in [0, 1, 3] {
        let error = &found[rank];
        assert!(error.starts_with("ERROR rank 2 has ended"), "{found:?}");
    }
}

/// A process of another run is refused, and the others do not take it for their own.
#[test]
fn another_run_is_refused() {
    let names = torchrun(2);
    let mut main = start("sum", &names(0));
    let found = start("other run", &names(1)).wait_with_output().unwrap();
    let text = String::from_utf8(found.stderr).unwrap();
    assert!(
        text.contains("refused this process: rank 1 is of run \"another\""),
        "{text}"
    );
    assert!(main.try_wait().unwrap().is_none(), "rank 0 goes on waiting");
    let right = start("sum", &names(1)).wait_with_output().unwrap();
    assert!(String::from_utf8(right.stderr).unwrap().contains("SUM 2"));
    assert!(main.wait().unwrap().success());
}
