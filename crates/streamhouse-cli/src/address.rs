//! Which server a command talks to, and who said so.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::failure::Failure;

/// Where a server listens when nobody says otherwise.
pub(crate) const DEFAULT: &str = "127.0.0.1:9094";

/// The file that a running `dev` node leaves in its data directory.
const ENDPOINTS: &str = "./.streamhouse/endpoints.json";

/// Who named the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `--server` or STREAMHOUSE_SERVER.
    Given,
    /// A running `dev` node, through its file.
    Endpoints,
    /// Nobody.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "from --server or STREAMHOUSE_SERVER",
            Self::Endpoints => "from ./.streamhouse/endpoints.json",
            Self::Default => "the default",
        })
    }
}

/// An address and who named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// `host:port`, or several separated by commas.
    pub(crate) text: String,
    /// Who named it.
    pub(crate) origin: Origin,
}

/// One node, or the nodes of a cluster.
#[derive(Deserialize)]
#[serde(untagged)]
enum Endpoints {
    Node(Endpoint),
    Nodes(Vec<Endpoint>),
}

#[derive(Deserialize)]
struct Endpoint {
    grpc: String,
}

impl Endpoints {
    /// All addresses, separated by commas.
    fn grpc(self) -> String {
        match self {
            Self::Node(node) => node.grpc,
            Self::Nodes(nodes) => nodes.into_iter().map(|node| node.grpc).collect::<Vec<_>>().join(","),
        }
    }
}

/// Finds the address: the one given, else the one of the `dev` node of this directory, else the default.
///
/// # Errors
/// When the file of a `dev` node is there but makes no sense.
pub(crate) fn find(given: Option<&str>) -> Result<Address, Failure> {
    find_with(given, Path::new(ENDPOINTS))
}

fn find_with(given: Option<&str>, endpoints: &Path) -> Result<Address, Failure> {
    if let Some(text) = given {
        return Ok(Address { text: text.to_owned(), origin: Origin::Given });
    }
    let Ok(text) = std::fs::read_to_string(endpoints) else {
        return Ok(Address { text: DEFAULT.to_owned(), origin: Origin::Default });
    };
    match serde_json::from_str::<Endpoints>(&text) {
        Ok(found) => Ok(Address { text: found.grpc(), origin: Origin::Endpoints }),
        Err(error) => Err(Failure::usage(format!("{} makes no sense: {error}", endpoints.display()))
            .hint("start `streamhouse dev` anew, which writes it, or name the server with --server")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_address_wins_over_a_running_dev_node_and_that_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("endpoints.json");
        assert_eq!(find_with(None, &file).unwrap().text, DEFAULT);
        std::fs::write(&file, r#"{"grpc": "127.0.0.1:4711", "http": "127.0.0.1:1"}"#).unwrap();
        let found = find_with(None, &file).unwrap();
        assert_eq!((found.text.as_str(), found.origin), ("127.0.0.1:4711", Origin::Endpoints));
        assert_eq!(find_with(Some("far:1"), &file).unwrap().text, "far:1");
        std::fs::write(&file, r#"[{"grpc": "127.0.0.1:1", "http": "h"}, {"grpc": "127.0.0.1:2"}]"#).unwrap();
        assert_eq!(find_with(None, &file).unwrap().text, "127.0.0.1:1,127.0.0.1:2");
    }

    #[test]
    fn a_broken_file_is_named_instead_of_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("endpoints.json");
        std::fs::write(&file, "{").unwrap();
        assert!(find_with(None, &file).unwrap_err().message.contains("endpoints.json"));
    }
}
