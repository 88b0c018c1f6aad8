//! `manifest.json`: size and sha256 of every file of a checkpoint folder, written last by the
//! trainer, verified by whoever loads the folder. A folder without one may still be loaded; a folder
//! with one that does not match must not be.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{ModelError, Result};

pub const FILE_NAME: &str = "manifest.json";
const FORMAT_VERSION: u32 = 1;
/// A manifest of a real folder is a few kB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What a checkpoint folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format_version: u32,
    /// By path relative to the folder, with `/`.
    pub files: BTreeMap<String, ManifestFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

impl Manifest {
    /// Measures every regular file of `dir` (not those of its subfolders, which serving never
    /// reads: `trainer_state/` is one), the manifest itself left out.
    pub fn measure(dir: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(dir).map_err(ModelError::io(dir, "list"))? {
            let entry = entry.map_err(ModelError::io(dir, "list"))?;
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                return Err(ModelError::folder(&path, "a file name that is not UTF-8"));
            };
            if name == FILE_NAME || !path.is_file() {
                continue;
            }
            files.insert(name, measure_file(&path)?);
        }
        Ok(Self {
            format_version: FORMAT_VERSION,
            files,
        })
    }

    /// Measures `dir` and writes its manifest, synced to disk. Call it last.
    pub fn write(dir: &Path) -> Result<Self> {
        let manifest = Self::measure(dir)?;
        let path = dir.join(FILE_NAME);
        crate::save::write_synced(&path, manifest.file_text().as_bytes())?;
        Ok(manifest)
    }

    fn file_text(&self) -> String {
        // BTreeMap and a fixed field order make the text canonical.
        let text =
            serde_json::to_string_pretty(self).expect("strings and numbers always serialise");
        text + "\n"
    }

    /// Reads `dir/manifest.json`; `None` where the folder has none.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE_NAME);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(ModelError::Io {
                    path,
                    action: "open",
                    source,
                });
            }
        };
        let mut text = String::new();
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(ModelError::io(&path, "read"))?;
        let manifest: Self = serde_json::from_str(&text).map_err(|source| ModelError::Json {
            path: path.clone(),
            source,
        })?;
        if manifest.format_version != FORMAT_VERSION {
            let found = manifest.format_version.to_string();
            return Err(ModelError::value(
                &path,
                "format_version",
                FORMAT_VERSION.to_string(),
                found,
            ));
        }
        if let Some(name) = manifest.files.keys().find(|name| !is_plain_name(name)) {
            return Err(ModelError::value(
                &path,
                "files",
                "names of files in the folder",
                name.clone(),
            ));
        }
        Ok(Some(manifest))
    }

    /// Refuses a folder in which a listed file is missing, has another size or other bytes, or in
    /// which there is a weight file that is not listed.
    pub fn verify(&self, dir: &Path) -> Result<()> {
        for (name, expected) in &self.files {
            let path = dir.join(name);
            let size = match std::fs::metadata(&path) {
                Ok(meta) => Some(meta.len()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(source) => return Err(ModelError::io(&path, "look at")(source)),
            };
            let wrong = |expected: String, found: String| ModelError::Manifest {
                path: dir.join(FILE_NAME),
                file: name.clone(),
                expected,
                found,
            };
            match size {
                None => return Err(wrong(format!("{} bytes", expected.size), "no file".into())),
                Some(size) if size != expected.size => {
                    let expected = format!("{} bytes", expected.size);
                    return Err(wrong(expected, format!("{size} bytes")));
                }
                Some(_) => {}
            }
            let found = measure_file(&path)?;
            if !found.sha256.eq_ignore_ascii_case(&expected.sha256) {
                return Err(wrong(
                    format!("sha256 {}", expected.sha256),
                    format!("sha256 {}", found.sha256),
                ));
            }
        }
        for path in weight_files(dir)? {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if !self.files.contains_key(name) {
                return Err(ModelError::Manifest {
                    path: dir.join(FILE_NAME),
                    file: name.to_owned(),
                    expected: "only listed weight files".into(),
                    found: "one that is not listed".into(),
                });
            }
        }
        Ok(())
    }

    /// sha256 (hex) of `manifest.json` as [`Manifest::write`] writes it: one value that pins every
    /// file. The trainer sends it along with a reload, so that the server loads exactly what was
    /// written.
    pub fn digest(&self) -> String {
        sha256_hex(self.file_text().as_bytes())
    }
}

/// Reads `dir`'s manifest and verifies the folder against it; `None` where it has none.
pub fn verify_folder(dir: &Path) -> Result<Option<Manifest>> {
    let manifest = Manifest::read(dir)?;
    if let Some(manifest) = &manifest {
        manifest.verify(dir)?;
    }
    Ok(manifest)
}

fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(ModelError::io(dir, "list"))?;
    Ok(entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "safetensors"))
        .collect())
}

/// No path but a name: a manifest must not reach out of its folder.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

fn measure_file(path: &Path) -> Result<ManifestFile> {
    let mut file = std::fs::File::open(path).map_err(ModelError::io(path, "open"))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = file
            .read(&mut buffer)
            .map_err(ModelError::io(path, "read"))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
    Ok(ManifestFile {
        size,
        sha256: hex(&hasher.finalize()),
    })
}

/// sha256 of one file, lower-case hex.
pub fn file_sha256(path: &Path) -> Result<String> {
    measure_file(path).map(|file| file.sha256)
}

/// sha256 of bytes, lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
}

#[cfg(test)]
mod tests;
