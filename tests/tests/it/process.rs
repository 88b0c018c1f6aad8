//! The three programs as child processes: called to their end, or started, watched and killed, once or
//! again and again.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A machine that is busy with other things must not fail a test; a program that hangs must.
pub(crate) const DEADLINE: Duration = Duration::from_mins(4);
/// Between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A program and its arguments, to be called.
#[derive(Debug)]
pub(crate) struct Call {
    command: Command,
}

/// What a program left when it had ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A program under way. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Its stdout and stderr, as files: nobody has to read them while it runs.
    output: TempDir,
}

/// `star <words>`.
pub(crate) fn star<const N: usize>(words: [&str; N]) -> Call {
    Call::new(env!("CARGO_BIN_EXE_it-star"), words)
}

/// `trainer <words>`.
pub(crate) fn trainer<const N: usize>(words: [&str; N]) -> Call {
    Call::new(env!("CARGO_BIN_EXE_it-trainer"), words)
}

/// `gen-server <words>`.
pub(crate) fn gen_server<const N: usize>(words: [&str; N]) -> Call {
    Call::new(env!("CARGO_BIN_EXE_it-gen-server"), words)
}

/// Waits until `condition` gives something.
///
/// # Panics
/// When it has not before the deadline.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "{what}: not within {DEADLINE:?}"
        );
        thread::sleep(POLL_INTERVAL);
    }
}

/// How often and when [`kill_again_and_again`] kills.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kills {
    pub(crate) count: usize,
    /// A call lives at most so long before it is killed.
    pub(crate) max_life: Duration,
    pub(crate) seed: u64,
}

/// Starts the same call for the same folder again and again and kills it at random moments; gives
/// each folder whose call came to its end to `check` and goes on with the next one. At least one
/// comes to its end: after the last kill a call is left alone.
pub(crate) fn kill_again_and_again(
    kills: Kills,
    folder: &Path,
    call: impl Fn(&Path) -> Call,
    check: impl Fn(&Path),
) {
    let mut random = kills.seed;
    let (mut num_kills, mut num_ends) = (0, 0);
    while num_kills < kills.count || num_ends == 0 {
        let out = folder.join(format!("killed_{num_ends}"));
        let mut running = call(&out).start();
        if num_kills < kills.count {
            // Knuth's constant (MMIX); the upper bits are the random ones.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let share = (random >> 40) as f64 / (1_u64 << 24) as f64;
            thread::sleep(kills.max_life.mul_f64(share));
            if running.poll().is_none() && running.kill() {
                num_kills += 1;
                continue;
            }
        } else {
            let ended = running.end();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
        check(&out);
        num_ends += 1;
    }
}

/// Free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

impl Call {
    fn new<const N: usize>(program: &str, words: [&str; N]) -> Self {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null());
        // What the developer's shell says about servers and logs is not for tests.
        for name in [
            "STAR_SERVER",
            "STAR_LOG",
            "RUST_LOG",
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "SLURM_PROCID",
        ] {
            command.env_remove(name);
        }
        Self { command }
    }

    /// A flag with a value, such as a path.
    pub(crate) fn with(mut self, flag: &str, value: impl Into<OsString>) -> Self {
        self.command.arg(flag).arg(value.into());
        self
    }

    /// A variable of its environment.
    pub(crate) fn with_env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.command.env(name, value.into());
        self
    }

    /// One of two ranks, told so as torchrun does it.
    pub(crate) fn with_rank(self, rank: usize, port: u16) -> Self {
        self.with_env("RANK", rank.to_string())
            .with_env("LOCAL_RANK", rank.to_string())
            .with_env("WORLD_SIZE", "2")
            .with_env("MASTER_ADDR", "127.0.0.1")
            .with_env("MASTER_PORT", port.to_string())
    }

    /// An argument without a flag.
    pub(crate) fn and(mut self, value: impl Into<OsString>) -> Self {
        self.command.arg(value.into());
        self
    }

    /// No file that it writes may grow beyond so many blocks of 512 bytes: what a full disk does,
    /// without one.
    pub(crate) fn with_small_files(self, num_blocks: u32) -> Self {
        let script = format!(r#"trap '' XFSZ; ulimit -f {num_blocks}; exec "$@""#);
        let mut call = Self::new("sh", ["-c", &script, "sh"]);
        call.command.arg(self.command.get_program());
        call.command.args(self.command.get_args());
        call
    }

    pub(crate) fn start(mut self) -> Running {
        let output = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| File::create(output.path().join(name)).expect("a log file");
        self.command.stdout(file("stdout")).stderr(file("stderr"));
        let child = self
            .command
            .spawn()
            .expect("the program was built for this test");
        Running { child, output }
    }

    /// Runs it to its end.
    pub(crate) fn end(self) -> Ended {
        self.start().end()
    }

    /// Runs it to its end, which must be a good one; gives what it printed.
    pub(crate) fn succeed(self) -> String {
        let shown = format!("{:?}", self.command);
        let ended = self.end();
        assert_eq!(
            ended.code,
            Some(0),
            "{shown}\n{}\n{}",
            ended.stdout,
            ended.stderr
        );
        ended.stdout
    }

    /// Runs it to its end, which must have this exit code; gives its one sentence on stderr.
    pub(crate) fn fail_with(self, code: i32) -> String {
        let shown = format!("{:?}", self.command);
        let ended = self.end();
        assert_eq!(
            ended.code,
            Some(code),
            "{shown}\n{}\n{}",
            ended.stdout,
            ended.stderr
        );
        assert!(
            !ended.stderr.contains("panicked"),
            "{shown}\n{}",
            ended.stderr
        );
        ended.stderr
    }
}

impl Running {
    pub(crate) fn stdout(&self) -> String {
        read(&self.output.path().join("stdout"))
    }

    pub(crate) fn stderr(&self) -> String {
        read(&self.output.path().join("stderr"))
    }

    /// Its end, if it has come.
    pub(crate) fn poll(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// When the program ends before.
    pub(crate) fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        wait_for(what, || {
            if condition(self) {
                return Some(());
            }
            let end = self.poll();
            assert!(
                end.is_none(),
                "{what}: it ended before ({end:?})\n{}",
                self.stderr()
            );
            None
        });
    }

    /// `kill -9`. False if it had ended by itself.
    pub(crate) fn kill(mut self) -> bool {
        if self.poll().is_some() {
            return false;
        }
        self.child.kill().expect("the child is ours");
        let status = self.child.wait().expect("the child is ours");
        status.code().is_none()
    }

    /// SIGTERM, then its end.
    pub(crate) fn terminate(self) -> Ended {
        self.end_by(Signal::TERM)
    }

    /// A signal, then its end.
    pub(crate) fn end_by(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.end()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the child is ours");
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let status = wait_for("the end of a program", || self.poll());
        Ended {
            code: status.code(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).expect("the program's output");
    String::from_utf8_lossy(&bytes).into_owned()
}
