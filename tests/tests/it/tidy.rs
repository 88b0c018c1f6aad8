//! Rules of `CONTRIBUTING.md` and `ARCHITECTURE.md` that a program can check, over the sources as
//! they lie on disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of a source file, its tests apart.
const MAX_FILE_LINES: usize = 400;

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the workspace")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The workspace's members, as its manifest lists them.
fn members() -> Vec<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = ["));
    let list = line
        .and_then(|line| line.strip_suffix(']'))
        .expect("a list on one line");
    list.split(',')
        .map(|name| name.trim().trim_matches('"').to_owned())
        .collect()
}

/// Files below a folder, relative to the workspace, without what Git ignores or keeps for itself.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        let entries =
            fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries {
            let path = entry.expect("a folder of the workspace").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            match name.as_str() {
                "target" | "runs" | ".git" | "__pycache__" => {}
                // Python environments of `bench/run`.
                venv if venv.starts_with(".venv-") => {}
                _ if path.is_dir() => open.push(path),
                _ => files.push(path),
            }
        }
    }
    files.sort();
    files
}

fn rust_files() -> Vec<PathBuf> {
    let in_members = members()
        .into_iter()
        .flat_map(|name| files_below(&root().join(name)));
    in_members
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

/// `x/tests.rs` beside `x.rs`, what lies below `tests/`, and helpers that only tests use.
fn is_test(path: &Path) -> bool {
    let relative = path.strip_prefix(root()).expect("below the workspace");
    relative
        .components()
        .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .expect("below the workspace")
        .display()
        .to_string()
}

/// Cargo does not hand the workspace's lints down by itself.
#[test]
fn every_member_has_the_lints() {
    let without: Vec<String> = members()
        .into_iter()
        .filter(|name| {
            !read(&root().join(name).join("Cargo.toml")).contains("[lints]\nworkspace = true")
        })
        .collect();
    assert!(
        without.is_empty(),
        "no `[lints] workspace = true` in: {without:?}"
    );
}

/// No file is longer than one can hold in mind; tests in the file do not count.
#[test]
fn no_file_is_too_long() {
    let num_lines = |path: &Path| {
        let text = read(path);
        let is_tests = |line: &&str| line.starts_with("mod tests {");
        text.lines()
            .position(|line| is_tests(&line))
            .unwrap_or(text.lines().count())
    };
    let too_long: Vec<String> = rust_files()
        .into_iter()
        .filter(|path| !is_test(path) && num_lines(path) > MAX_FILE_LINES)
        .map(|path| format!("{} ({})", shown(&path), num_lines(&path)))
        .collect();
    assert!(
        too_long.is_empty(),
        "more than {MAX_FILE_LINES} lines: {too_long:#?}"
    );
}

/// Every source file opens by saying what lives in it.
#[test]
fn every_file_says_what_it_holds() {
    let silent: Vec<String> = rust_files()
        .into_iter()
        .filter(|path| path.file_name().is_none_or(|name| name != "tests.rs"))
        .filter(|path| !read(path).starts_with("//!"))
        .map(|path| shown(&path))
        .collect();
    assert!(
        silent.is_empty(),
        "no `//!` on the first line of: {silent:#?}"
    );
}

/// No path of somebody's machine is in the repository.
#[test]
fn no_path_of_a_machine() {
    // Put together here, or this file would find itself.
    let roots = ["work", "root", "home", "Users"].map(|name| format!("/{name}/"));
    let mut found = Vec::new();
    for path in files_below(&root()) {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            let starts_path = |at: usize| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| !(c.is_alphanumeric() || "._-}$~".contains(c)))
            };
            if roots.iter().any(|root| {
                line.match_indices(root.as_str())
                    .any(|(at, _)| starts_path(at))
            }) {
                found.push(format!("{}:{}: {}", shown(&path), index + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
