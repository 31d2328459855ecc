//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use super::layers::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {message}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        message: String,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// There is no setting of this name.
    #[error("there is no setting `{key}` ({origin}){}", DidYouMean(*suggestion))]
    UnknownKey {
        /// The name as given.
        key: String,
        /// Who gave it.
        origin: Origin,
        /// The known name that looks most like it.
        suggestion: Option<&'static str>,
    },
    /// The setting is reserved for something that does not exist yet.
    #[error("`{key}` cannot be set yet ({origin}): {why}")]
    NotYet {
        /// The name.
        key: String,
        /// Who gave it.
        origin: Origin,
        /// What it waits for.
        why: &'static str,
    },
    /// The value is not of the setting's kind.
    #[error("`{value}` is no value for `{key}` ({origin}): expected {expected}")]
    Value {
        /// The setting.
        key: &'static str,
        /// Who gave it.
        origin: Origin,
        /// The value, `…` for a secret.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
    /// The value is of the right kind but cannot be used.
    #[error("`{key}` {why}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// Why not, and what would be right.
        why: String,
    },
}

struct DidYouMean(Option<&'static str>);

impl fmt::Display for DidYouMean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, ", did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a configuration, so that one look is enough to put it right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.problems.iter().enumerate() {
            let lead = if place == 0 { "" } else { "\n" };
            write!(f, "{lead}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
