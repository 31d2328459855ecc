//! The house rules that no compiler and no lint checks: crate arrows, sizes, stubs, words, documents.
//!
//! Each test gathers every breach before it fails, so that one run shows them all.

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/rust_text.rs"]
mod rust_text;
#[path = "tidy/sources.rs"]
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie one level below the root")
        .to_path_buf()
}

/// Every file under `dir` that is part of the repository, in the order of the paths.
fn files(dir: &Path) -> Vec<PathBuf> {
    const NOT_OURS: [&str; 5] = ["target", ".git", ".streamhouse", "artifacts", "__pycache__"];
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("a directory of the repository can be read") {
            let path = entry.expect("a directory of the repository can be read").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
            if NOT_OURS.contains(&name.as_str()) {
                // In a second working tree `.git` is a file.
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Files of the repository whose name ends with `.{extension}`.
fn files_with_extension(extension: &str) -> Vec<PathBuf> {
    files(&root())
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

/// The path as a person writes it, from the root of the repository.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Fails with all breaches, one a line.
#[track_caller]
fn demand_none(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}\n  {}\n", breaches.join("\n  "));
}
