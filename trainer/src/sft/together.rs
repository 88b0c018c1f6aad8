//! What the ranks of a run do together outside the loop: meet, and agree on where to go on. Rank 0
//! writes the results; the others compute and log into a folder of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::manifest::sha256_hex;

use crate::cli::args::SftArgs;
use crate::config::{RuntimeConfig, TrainingConfig};
use crate::distributed::{Group, GroupSettings};
use crate::error::{Result, TrainError};
use crate::folders::{CheckpointName, Folder};
use crate::progress::Progress;
use crate::resume::newest_complete;

/// Meets the other ranks, where a launcher has started several.
pub(super) fn connect(args: &SftArgs, config: &TrainingConfig) -> Result<Group> {
    let Some(ranks) = args.ranks.clone() else {
        return Ok(Group::Single);
    };
    let settings = serde_json::to_vec(config).expect("plain data always serialises");
    Ok(Group::connect(Some(&GroupSettings {
        gpu: args.common.device.gpu_number(Some(&ranks)),
        ranks,
        run: sha256_hex(&settings),
        time_limit: Duration::from_secs(args.group.time_limit_s) + rank_0_alone(args),
        backend: args.group.backend(),
    }))?)
}

/// What servers may take after an epoch, while the other ranks wait.
fn rank_0_alone(args: &SftArgs) -> Duration {
    let servers = match args.notify.server.len() {
        0 => Duration::ZERO,
        _ => Duration::from_secs(args.notify.server_time_limit_s),
    };
    let accuracy = args.best.accuracy_questions.as_ref();
    servers + accuracy.map_or(Duration::ZERO, |_| args.best.time_limit())
}

/// Errors on every rank unless all of them are about to train the same weights under the same rules for
/// ending.
pub(super) fn agree(
    group: &mut Group,
    config: &TrainingConfig,
    runtime: &RuntimeConfig,
) -> Result<()> {
    let own = format!("{config:?} {:?} {:?}", runtime.best, runtime.guard).into_bytes();
    let first = group.broadcast(own.clone())?;
    let mut num_others = [f64::from(u8::from(first != own))];
    group.all_reduce_sum_f64(&mut num_others)?;
    if num_others[0] > 0.0 {
        let what = format!(
            "{} ranks have other weights in --model, or other flags, than rank 0",
            num_others[0]
        );
        return Err(TrainError::BadMessage { what });
    }
    Ok(())
}

/// Where this process writes its logs: all but rank 0 have a folder of their own.
pub(super) fn log_folder(out: &Path, group: &Group) -> Result<PathBuf> {
    if group.rank() == 0 {
        return Ok(out.to_path_buf());
    }
    let folder = out.join("ranks").join(group.rank().to_string());
    std::fs::create_dir_all(&folder).map_err(TrainError::io(&folder))?;
    Ok(folder)
}

/// The newest complete checkpoint, as rank 0 finds it after it has put the folder in order.
pub(super) fn newest_for_all(
    out: &Path,
    group: &mut Group,
    progress: &mut Progress,
) -> Result<Option<Folder>> {
    let own = match group.rank() {
        0 => newest_complete(out, progress)?.map(|found| found.name.to_string()),
        _ => None,
    };
    let name = group.broadcast(own.unwrap_or_default().into_bytes())?;
    let name = String::from_utf8_lossy(&name);
    Ok(CheckpointName::parse(&name).map(|name| Folder {
        path: out.join(name.to_string()),
        name,
    }))
}
