//! The commands that people type.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::node::binary;

/// A folder in which commands run. As everything here, it panics when what has to work does not.
#[derive(Debug)]
pub struct Shell {
    folder: PathBuf,
    servers: Option<String>,
}

impl Shell {
    /// Commands find the node that runs in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), servers: None }
    }

    /// Commands talk to these servers, separated by commas.
    #[must_use]
    pub fn at(folder: &Path, servers: &str) -> Self {
        Self { folder: folder.to_owned(), servers: Some(servers.to_owned()) }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// A command that is still to run, with nothing to read.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        match &self.servers {
            Some(servers) => command.env("STREAMHOUSE_SERVER", servers),
            None => command.env_remove("STREAMHOUSE_SERVER"),
        };
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
        assert!(output.status.success(), "{args:?}: {}: {said}", output.status);
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
