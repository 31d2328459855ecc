//! A node and the commands that people type at it.

use std::ops::Deref;

use tempfile::TempDir;

use crate::node::Node;
use crate::shell::Shell;

/// A node with a folder of its own, in which commands run and find it.
#[derive(Debug)]
pub struct House {
    _folder: TempDir,
    shell: Shell,
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
        let shell = Shell::new(folder.path());
        Self { _folder: folder, shell, node }
    }
}

impl Deref for House {
    type Target = Shell;

    fn deref(&self) -> &Shell {
        &self.shell
    }
}
