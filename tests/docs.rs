//! Documents are run: every block marked `sh` is executed against a real node, and what it prints is compared with the
//! block marked `output` that follows it.
//!
//! The blocks of one document run one after the other, in one directory and against one node of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use streamhouse_tests::node::{Node, binary};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie one level below the root")
        .to_path_buf()
}

/// A fenced block: the line on which it begins, the word behind the fence, the text.
struct Block {
    line: usize,
    kind: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in document.lines().enumerate() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(kind), None) => {
                open = Some(Block { line: number + 1, kind: kind.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

fn documents() -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![root().join("README.md")];
    let mut open = vec![root().join("docs")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Runs the blocks of one document; tells how many there were.
async fn run(document: &Path) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(document)?;
    let blocks = blocks(&text);
    if !blocks.iter().any(|block| block.kind == "sh") {
        return Ok(0);
    }
    let folder = tempfile::tempdir()?;
    // Where a person's own `dev` node would keep its data, so that commands find it by themselves.
    let mut node = Node::new(&folder.path().join(".streamhouse"));
    node.start().await?;
    let bin = binary().parent().context("a binary lies in a directory")?.to_path_buf();
    let system = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&system)))?;
    let mut ran = 0;
    for (at, block) in blocks.iter().enumerate().filter(|(_, block)| block.kind == "sh") {
        let place = format!("{}:{}", document.display(), block.line);
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &block.text])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env_remove("STREAMHOUSE_SERVER")
            .output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{place}: {}\n{}\n{printed}\n{said}", output.status, block.text);
        if let Some(expected) = blocks.get(at + 1).filter(|next| next.kind == "output") {
            ensure!(
                printed.trim_end() == expected.text.trim_end(),
                "{place} printed\n{printed}\ninstead of\n{}",
                expected.text
            );
        }
        ran += 1;
    }
    ensure!(node.stop()?.success(), "{}", node.log());
    Ok(ran)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_in_the_documents_works_and_prints_what_they_say() -> anyhow::Result<()> {
    let mut ran = 0;
    for document in documents()? {
        ran += run(&document).await?;
    }
    ensure!(ran > 0, "no document shows a command");
    Ok(())
}

#[test]
fn blocks_are_told_apart_by_the_word_behind_the_fence() {
    let found = blocks("text\n```sh\na\nb\n```\n```output\nc\n```\n");
    let kinds: Vec<_> =
        found.iter().map(|block| (block.line, block.kind.as_str(), block.text.as_str())).collect();
    assert_eq!(kinds, [(2, "sh", "a\nb\n"), (6, "output", "c\n")]);
}
