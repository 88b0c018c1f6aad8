//! The trainer as a child process: this same program under a hidden command. Its events come over
//! stdout, one JSON object a line; what it writes to stderr goes to a log file.

use std::{
    ffi::OsString,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};
use trainer::progress::Event;

use crate::error::{ClientError, EXIT_RESUMABLE, file_error};

/// The hidden command under which this program is the trainer.
pub const TRAINER_COMMAND: &str = "trainer";
/// Follows it: the process that must live for this one to live.
const PARENT_FLAG: &str = "--parent-process";
/// A stopped trainer finishes its step and saves; both take a while for a large model.
const STOP_GRACE: Duration = Duration::from_mins(10);
/// Enough of the end of the log to see why it failed.
const LOG_TAIL_LINES: usize = 5;

/// `star trainer [--parent-process PID] …`: the trainer's own program in this one.
pub fn trainer_main(mut args: Vec<OsString>) -> ExitCode {
    args.remove(0);
    if args.get(1).is_some_and(|flag| flag == PARENT_FLAG) {
        let parent = args
            .get(2)
            .and_then(|id| id.to_str())
            .and_then(|id| id.parse().ok());
        args.drain(1..args.len().min(3));
        if !die_with_parent(parent) {
            return ExitCode::FAILURE;
        }
    }
    trainer::cli::main_from(args)
}

/// A trainer that outlives a killed `star` would write beside the one that the next `star` starts.
/// False where the parent is gone already.
fn die_with_parent(parent: Option<u32>) -> bool {
    use rustix::process::{Signal, set_parent_process_death_signal};
    // Where the system has no such thing, the trainer's own lock still refuses the second one.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    parent.is_none_or(|parent| std::os::unix::process::parent_id() == parent)
}

/// A trainer under way. Dropping it kills it.
#[derive(Debug)]
pub(super) struct TrainerProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl TrainerProcess {
    /// Starts `trainer <args> --progress json`.
    pub(super) fn start(args: &[OsString], log: &Path) -> Result<Self, ClientError> {
        let failed = |cause: std::io::Error| ClientError::Trainer(format!("cannot start: {cause}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut log_file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(file_error("open the log", log))?;
        let line: Vec<String> = args
            .iter()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        let _ = writeln!(log_file, "trainer {}", line.join(" "));
        let mut command = Command::new(program);
        // It is this program's child, not one of a launcher's ranks.
        for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID"] {
            command.env_remove(name);
        }
        let mut child = command
            .arg(TRAINER_COMMAND)
            .arg(PARENT_FLAG)
            .arg(std::process::id().to_string())
            .args(args)
            .args(["--progress", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| ClientError::Trainer("it has no stdout".to_owned()))?;
        Ok(Self {
            child,
            lines: BufReader::new(stdout).lines(),
            log: log.to_owned(),
        })
    }

    /// The next event, or `None` at the end of its output. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            let line = self.lines.next_line().await;
            let line = line.map_err(|cause| ClientError::Trainer(cause.to_string()))?;
            let Some(line) = line else { return Ok(None) };
            match serde_json::from_str(&line) {
                Ok(event) => return Ok(Some(event)),
                Err(cause) => tracing::warn!(%line, %cause, "not an event of the trainer"),
            }
        }
    }

    /// Its process id while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end and turns its exit code into an outcome.
    pub(super) async fn finish(mut self) -> Result<(), ClientError> {
        let status = self.child.wait().await;
        let status = status.map_err(|cause| ClientError::Trainer(cause.to_string()))?;
        self.outcome(status)
    }

    /// Asks it to stop, and waits until it has: the last complete epoch is the point to resume from.
    pub(super) async fn stop(mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok())
            && let Some(id) = rustix::process::Pid::from_raw(id)
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        // Its output must be read, or it could block on a full pipe.
        let drain = async { while let Ok(Some(_)) = self.next().await {} };
        let _ = tokio::time::timeout(STOP_GRACE, drain).await;
        let _ = tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await;
    }

    fn outcome(&self, status: ExitStatus) -> Result<(), ClientError> {
        match status.code() {
            Some(0) => Ok(()),
            Some(code) if code == i32::from(EXIT_RESUMABLE) => Err(ClientError::Interrupted),
            _ => {
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
                let log = self.log.display();
                Err(ClientError::Trainer(format!(
                    "{status}; from {log}:\n{}",
                    tail.join("\n")
                )))
            }
        }
    }
}
