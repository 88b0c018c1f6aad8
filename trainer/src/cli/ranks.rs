//! Who this process is among others, from the environment that a launcher sets: torchrun's names or
//! SLURM's. The only file here that reads the environment.

use crate::distributed::{GroupError, MeetingPoint, Ranks};

/// Where SLURM jobs meet when no `MASTER_PORT` is given: this plus a number below
/// [`SLURM_PORTS`] made from job and step, under the ports that systems hand out by themselves.
const SLURM_FIRST_PORT: u64 = 15_000;
const SLURM_PORTS: u64 = 10_000;

/// The environment's [`Ranks`]; `None` for a process alone: no launcher's names, or a group of one.
///
/// # Errors
/// Everything that is missing or wrong, by its name.
pub fn from_environment() -> Result<Option<Ranks>, GroupError> {
    let text = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
    parse(text)
}

/// As [`from_environment`], from any lookup of names.
fn parse(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Ranks>, GroupError> {
    let mut names = Names {
        lookup: &|name| lookup(name).filter(|value| !value.is_empty()),
        problems: Vec::new(),
    };
    let found = if ["RANK", "WORLD_SIZE", "LOCAL_RANK"]
        .iter()
        .any(|name| names.has(name))
    {
        names.torchrun()
    } else if names.has("SLURM_PROCID") && names.has("SLURM_STEP_NUM_TASKS") {
        // A batch script has a rank, but only what srun starts is one of several.
        names.slurm()
    } else {
        None
    };
    if !names.problems.is_empty() {
        return Err(GroupError::Environment(names.problems));
    }
    found
        .map(|(rank, size, local_rank, meeting)| Ranks::new((rank, size), local_rank, meeting))
        .transpose()
}

/// Rank, size, local rank, where to meet: not yet checked against each other.
type Found = Option<(usize, usize, usize, MeetingPoint)>;

/// The environment, with all that is wrong with it so far.
struct Names<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl Names<'_> {
    fn has(&self, name: &str) -> bool {
        (self.lookup)(name).is_some()
    }

    /// A number that has to be there.
    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        let Some(text) = (self.lookup)(name) else {
            self.problems.push(format!("{name} is not set"));
            return None;
        };
        let number = text.trim().parse().ok();
        if number.is_none() {
            self.problems
                .push(format!("{name} = {text:?}: expected a number"));
        }
        number
    }

    fn torchrun(&mut self) -> Found {
        let size = self.number("WORLD_SIZE");
        if size == Some(1) {
            return None;
        }
        let (rank, local_rank) = (self.number("RANK"), self.number("LOCAL_RANK"));
        let port: Option<u16> = self.number("MASTER_PORT");
        let host = (self.lookup)("MASTER_ADDR");
        if host.is_none() {
            self.problems.push("MASTER_ADDR is not set".to_string());
        }
        // torchrun's agent itself listens at MASTER_PORT, for its own store.
        let taken = (self.lookup)("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|it| it == "True");
        let port = port?.checked_add(u16::from(taken));
        if port.is_none() {
            self.problems
                .push("MASTER_PORT: expected below 65535".to_string());
        }
        let meeting = MeetingPoint {
            host: host?,
            port: port?,
        };
        Some((rank?, size?, local_rank?, meeting))
    }

    fn slurm(&mut self) -> Found {
        let size = self.number("SLURM_STEP_NUM_TASKS");
        if size == Some(1) {
            return None;
        }
        let (rank, local_rank) = (self.number("SLURM_PROCID"), self.number("SLURM_LOCALID"));
        let listed = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"]
            .iter()
            .find_map(|name| (self.lookup)(name));
        let host = (self.lookup)("MASTER_ADDR")
            .or_else(|| listed.as_deref().and_then(first_host))
            .or_else(|| (self.lookup)("SLURM_LAUNCH_NODE_IPADDR"));
        if host.is_none() {
            self.problems.push(
                "none of MASTER_ADDR, SLURM_JOB_NODELIST and SLURM_LAUNCH_NODE_IPADDR is set"
                    .to_string(),
            );
        }
        let port = if self.has("MASTER_PORT") {
            self.number("MASTER_PORT")
        } else {
            let job: Option<u64> = self.number("SLURM_JOB_ID");
            let step = (self.lookup)("SLURM_STEP_ID").and_then(|it| it.parse().ok());
            job.map(|job| {
                let number = job.wrapping_add(step.unwrap_or(0u64)) % SLURM_PORTS;
                (SLURM_FIRST_PORT + number) as u16
            })
        };
        let meeting = MeetingPoint {
            host: host?,
            port: port?,
        };
        Some((rank?, size?, local_rank?, meeting))
    }
}

/// The first host of a SLURM list such as `a[01-04,07],b`: `a01`. It is rank 0's under SLURM's block
/// and cyclic distributions.
fn first_host(list: &str) -> Option<String> {
    let end = list.find(['[', ',']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let Some(range) = rest.strip_prefix('[') else {
        return Some(name.to_string()).filter(|name| !name.is_empty());
    };
    let (inside, after) = range.split_once(']')?;
    let number = inside.split([',', '-']).next()?;
    let suffix = after.split(',').next().unwrap_or_default();
    Some(format!("{name}{number}{suffix}"))
}

#[cfg(test)]
mod tests;
