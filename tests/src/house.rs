//! A node and the commands that people type at it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::node::{Node, binary};

/// A node with a folder of its own, in which commands run and find it.
#[derive(Debug)]
pub struct House {
    folder: TempDir,
    /// It runs.
    pub node: Node,
}

impl House {
    /// With a node that takes requests.
    ///
    /// # Panics
    /// When it does not start; as everything here, when what has to work does not.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut node = Node::new(&folder.path().join(".streamhouse"));
        node.start().await.expect("the node starts");
        Self { folder, node }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command that is still to run, with nothing to read.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).current_dir(self.path()).env_remove("STREAMHOUSE_SERVER").stdin(Stdio::null());
        command
    }

    /// Runs a command.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Runs a command that has to work; its standard output.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {}: {said}\n{}", output.status, self.node.log());
        String::from_utf8(output.stdout).expect("results are text")
    }

    /// Runs a command that has to work; what it prints as JSON.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let words: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let document: Value = serde_json::from_str(&self.ok(&words)).expect("one JSON document");
        assert_eq!(document["schema"], "streamhouse.cli/v1", "{args:?}");
        document
    }

    /// Runs a command that has to fail; the error it prints as JSON.
    ///
    /// # Panics
    /// When it prints none.
    #[track_caller]
    pub fn error(&self, args: &[&str]) -> Value {
        let words: Vec<&str> = args.iter().copied().chain(["-o", "json", "-q"]).collect();
        let output = self.run(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        let document: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{args:?} said {said}"));
        let error = document["error"].clone();
        assert_eq!(error["exit_code"].as_i64(), output.status.code().map(i64::from), "{said}");
        error
    }

    /// Runs `produce` with these arguments and something to read.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn produce(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(&[&["produce"], args].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // A command that refuses its arguments reads nothing.
        let _refused = child.stdin.take().expect("stdin is piped").write_all(input);
        child.wait_with_output().expect("the command ends")
    }
}
