//! Where checkpoints lie on this file system and what the server calls them.

use std::{
    fs,
    io::BufRead,
    path::{Path, PathBuf},
};

use crate::error::{ClientError, file_error};

/// The untouched model's name.
pub(super) const BASE: &str = "base";

/// A folder below the server's checkpoint root.
#[derive(Debug, Clone)]
pub(super) struct Checkpoints {
    /// The folder on this file system.
    folder: PathBuf,
    /// The same folder's name below the root; empty where it is the root.
    prefix: String,
}

impl Checkpoints {
    /// The root itself: for a server in this process.
    pub(super) fn at_root(folder: PathBuf) -> Self {
        Self {
            folder,
            prefix: String::new(),
        }
    }

    /// A folder of its own below the root of a server that others may use too.
    pub(super) fn below(root: &Path, out: &Path) -> Result<Self, ClientError> {
        if !root.is_dir() {
            return Err(ClientError::Usage(format!(
                "--server-checkpoint-root {}: no such folder on this machine",
                root.display()
            )));
        }
        let name = out
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match name {
            Some(name) if name.chars().all(allowed) => Ok(Self {
                folder: root.join(&name),
                prefix: name,
            }),
            _ => Err(ClientError::Usage(format!(
                "--out {}: the last part names the checkpoints on the server and may hold only \
                 letters, digits, `.`, `_` and `-`",
                out.display()
            ))),
        }
    }

    /// A checkpoint's folder on this file system.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the server calls it.
    pub(super) fn name_at_server(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.prefix)
        }
    }

    /// Puts the untouched model below the root, so that it can be swapped back in: hard links where
    /// the file system allows it, copies elsewhere.
    pub(super) fn place_base(&self, model: &Path) -> Result<PathBuf, ClientError> {
        let base = self.path(BASE);
        if base.is_dir() {
            return refuse_other_model(model, &base).map(|()| base);
        }
        if !model.join("config.json").is_file() {
            return Err(ClientError::Usage(format!(
                "{} is no model folder: it has no config.json. Give a folder in Hugging Face \
                 layout (config.json, tokenizer.json, model.safetensors)",
                model.display()
            )));
        }
        let beside = self.path(&format!(".{BASE}.tmp-{}", std::process::id()));
        fs::create_dir_all(&beside).map_err(file_error("create the folder", &beside))?;
        let entries = fs::read_dir(model).map_err(file_error("read the folder", model))?;
        for entry in entries {
            let entry = entry.map_err(file_error("read the folder", model))?;
            // A file of the Hugging Face cache is a link to the blob that holds it.
            let source = entry.path().canonicalize();
            let source = source.map_err(file_error("follow", &entry.path()))?;
            if source.is_file() {
                let target = beside.join(entry.file_name());
                link_or_copy(&source, &target)?;
            }
        }
        fs::rename(&beside, &base).map_err(file_error("rename into place", &base))?;
        Ok(base)
    }

    /// Removes a checkpoint that nothing asks for any more: out of sight first, so that a stop in
    /// between leaves none that looks whole.
    pub(super) fn remove(&self, name: &str) -> Result<(), ClientError> {
        let folder = self.path(name);
        let hidden = folder.with_extension("removed");
        if folder.is_dir() {
            fs::rename(&folder, &hidden).map_err(file_error("move away", &folder))?;
        }
        match fs::remove_dir_all(&hidden) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(file_error("remove", &hidden)(cause))
            }
            _ => Ok(()),
        }
    }
}

/// An experiment is about one model: another one for the same folder is refused. A model folder
/// that is gone is no contradiction.
fn refuse_other_model(model: &Path, base: &Path) -> Result<(), ClientError> {
    let entries = fs::read_dir(base).map_err(file_error("read the folder", base))?;
    for entry in entries {
        let placed = entry.map_err(file_error("read the folder", base))?.path();
        let name = placed.file_name().unwrap_or_default();
        let given = model.join(name);
        let same = || is_same_file(&given, &placed);
        if given.is_file() && !same().map_err(file_error("read", &given))? {
            return Err(ClientError::OtherSettings {
                path: base.to_owned(),
                field: format!("base model ({})", name.to_string_lossy()),
                expected: "the model that the run began with".to_owned(),
                found: given.display().to_string(),
            });
        }
    }
    Ok(())
}

/// Hard links are told at once, copies by their bytes.
fn is_same_file(one: &Path, other: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (left, right) = (fs::metadata(one)?, fs::metadata(other)?);
    if (left.dev(), left.ino()) == (right.dev(), right.ino()) {
        return Ok(true);
    }
    if left.len() != right.len() {
        return Ok(false);
    }
    let open = |path: &Path| fs::File::open(path).map(std::io::BufReader::new);
    let (mut left, mut right) = (open(one)?, open(other)?);
    loop {
        let (ours, theirs) = (left.fill_buf()?, right.fill_buf()?);
        let len = ours.len().min(theirs.len());
        if ours[..len] != theirs[..len] {
            return Ok(false);
        }
        if len == 0 {
            return Ok(true);
        }
        left.consume(len);
        right.consume(len);
    }
}

fn link_or_copy(source: &Path, target: &Path) -> Result<(), ClientError> {
    // A copy that was stopped half-way would stand in the way of the link.
    let _ = fs::remove_file(target);
    if fs::hard_link(source, target).is_ok() {
        return Ok(());
    }
    fs::copy(source, target).map_err(file_error("copy to", target))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The base model lies below the root under the server's name for it, whole or not at all.
    #[test]
    fn the_base_is_placed_once() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        fs::create_dir_all(model.join("nested")).unwrap();
        fs::write(model.join("config.json"), "{}").unwrap();
        std::os::unix::fs::symlink(model.join("config.json"), model.join("linked.json")).unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let out = dir.path().join("run-1");
        let checkpoints = Checkpoints::below(&dir.path().join("root"), &out).unwrap();
        let base = checkpoints.place_base(&model).unwrap();
        assert_eq!(base, dir.path().join("root/run-1/base"));
        assert!(base.join("linked.json").is_file() && !base.join("nested").exists());
        assert_eq!(checkpoints.place_base(&model).unwrap(), base);
        assert_eq!(
            checkpoints.name_at_server("star/epoch_1"),
            "run-1/star/epoch_1"
        );
    }

    /// Another model for a folder that has one is refused, also where all sizes are the same; the
    /// same model copied elsewhere is not.
    #[test]
    fn another_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str, weights: &str| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("config.json"), "{}").unwrap();
            fs::write(folder.join("model.safetensors"), weights).unwrap();
            folder
        };
        let checkpoints = Checkpoints::at_root(dir.path().join("checkpoints"));
        checkpoints.place_base(&folder("model", "1111")).unwrap();
        checkpoints.place_base(&folder("copy", "1111")).unwrap();
        let error = checkpoints.place_base(&folder("other", "1112"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("base model (model.safetensors)"), "{error}");
    }

    /// A removed checkpoint is gone, one that is not there is no error.
    #[test]
    fn checkpoints_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::at_root(dir.path().to_owned());
        let epoch = dir.path().join("star/epoch_1");
        fs::create_dir_all(&epoch).unwrap();
        fs::write(epoch.join("model.safetensors"), "w").unwrap();
        checkpoints.remove("star/epoch_1").unwrap();
        checkpoints.remove("star/epoch_1").unwrap();
        assert_eq!(fs::read_dir(dir.path().join("star")).unwrap().count(), 0);
    }

    /// A folder without config.json is no model, and the sentence says what one has.
    #[test]
    fn a_missing_model_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::at_root(dir.path().join("checkpoints"));
        let error = checkpoints
            .place_base(&dir.path().join("absent"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("absent") && error.contains("config.json"),
            "{error}"
        );
    }
}
