//! Where each value comes from: default < preset < AWS variables < file < environment < flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::keys::{AWS_VARIABLES, Kind, NOT_YET, find, suggestion};
use super::problem::Problem;

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: the built-in default.
    Default,
    /// The preset of a command, such as `dev`.
    Preset(&'static str),
    /// A file.
    File(PathBuf),
    /// An environment variable of this name.
    Environment(String),
    /// A command-line flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value as it was given, and by whom.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) value: toml::Value,
    pub(super) origin: Origin,
}

/// All values given, the strongest origin of each name.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) values: BTreeMap<&'static str, Given>,
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    /// Puts a value given as text on top of what is there.
    pub(super) fn text(&mut self, name: &str, text: &str, origin: Origin) {
        self.put(name, toml::Value::String(text.to_owned()), origin);
    }

    fn put(&mut self, name: &str, value: toml::Value, origin: Origin) {
        if let Some((_, why)) = NOT_YET.iter().find(|(reserved, _)| *reserved == name) {
            return self.problems.push(Problem::NotYet { key: name.to_owned(), origin, why });
        }
        let Some(key) = find(name) else {
            let suggestion = suggestion(name);
            return self.problems.push(Problem::UnknownKey { key: name.to_owned(), origin, suggestion });
        };
        match typed(key.kind, value) {
            Ok(value) => drop(self.values.insert(key.name, Given { value, origin })),
            Err((value, expected)) => {
                let value = if key.kind == Kind::Secret { "…".to_owned() } else { value };
                self.problems.push(Problem::Value { key: key.name, origin, value, expected });
            }
        }
    }

    /// The variables of the AWS tools: weaker than a file, since they are set for other programs.
    pub(super) fn aws(&mut self, environment: &BTreeMap<String, String>) {
        for (variable, name) in AWS_VARIABLES.iter().rev() {
            if let Some(text) = environment.get(*variable).filter(|text| !text.is_empty()) {
                self.text(name, text, Origin::Environment((*variable).to_owned()));
            }
        }
    }

    /// A TOML text, `[section]` by `[section]`.
    pub(super) fn file(&mut self, path: &Path, text: &str) {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                let message = error.to_string().trim_end().to_owned();
                return self.problems.push(Problem::Syntax { path: path.to_owned(), message });
            }
        };
        for (section, value) in table {
            let origin = Origin::File(path.to_owned());
            match value {
                toml::Value::Table(entries) => {
                    for (name, value) in entries {
                        self.put(&format!("{section}.{name}"), value, origin.clone());
                    }
                }
                value => self.put(&section, value, origin),
            }
        }
    }

    /// `STREAMHOUSE_SECTION__KEY`. Variables without the double underscore are not settings of the server.
    pub(super) fn environment(&mut self, environment: &BTreeMap<String, String>) {
        for (variable, text) in environment {
            let Some(rest) = variable.strip_prefix("STREAMHOUSE_") else { continue };
            let Some((section, name)) = rest.split_once("__") else { continue };
            let name = format!("{}.{}", section.to_ascii_lowercase(), name.to_ascii_lowercase());
            self.text(&name, text, Origin::Environment(variable.clone()));
        }
    }

    /// The merged values, ready for serde.
    pub(super) fn tables(&self) -> serde_json::Value {
        nested(self.values.iter().map(|(key, given)| (*key, given)))
    }
}

/// Values by `section.name` as nested tables.
pub(super) fn nested<'a>(values: impl IntoIterator<Item = (&'static str, &'a Given)>) -> serde_json::Value {
    let mut sections = serde_json::json!({});
    for (key, given) in values {
        let Some((section, name)) = key.split_once('.') else { continue };
        sections[section][name] = serde_json::json!(given.value);
    }
    sections
}

/// Brings a value to the form of its kind, or says what it looked like and what was expected.
fn typed(kind: Kind, value: toml::Value) -> Result<toml::Value, (String, &'static str)> {
    use toml::Value;
    let shown = match &value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let wrong = |expected| Err((shown.clone(), expected));
    match (kind, value) {
        (Kind::Text | Kind::Secret, Value::String(text)) => Ok(Value::String(text)),
        (Kind::Text | Kind::Secret, _) => wrong("a text in quotes"),
        (Kind::Integer | Kind::Size, Value::Integer(number)) if number >= 0 => Ok(Value::Integer(number)),
        (Kind::Integer, Value::String(text)) => match text.trim().parse::<u32>() {
            Ok(number) => Ok(Value::Integer(number.into())),
            Err(_) => wrong("a whole number"),
        },
        (Kind::Integer, _) => wrong("a whole number"),
        (Kind::Size, Value::String(text)) => {
            match streamhouse_units::parse_bytes(&text).ok().map(i64::try_from) {
                Some(Ok(bytes)) => Ok(Value::Integer(bytes)),
                _ => wrong("bytes, such as 1048576 or \"8MiB\""),
            }
        }
        (Kind::Size, _) => wrong("bytes, such as 1048576 or \"8MiB\""),
        (Kind::Duration, Value::String(text)) => match humantime::parse_duration(&text) {
            Ok(_) => Ok(Value::String(text)),
            Err(_) => wrong("a time span, such as \"50ms\" or \"15m\""),
        },
        (Kind::Duration, _) => wrong("a time span in quotes, such as \"50ms\" or \"15m\""),
        (Kind::Flag, Value::Boolean(flag)) => Ok(Value::Boolean(flag)),
        (Kind::Flag, Value::String(text)) => match text.trim().parse::<bool>() {
            Ok(flag) => Ok(Value::Boolean(flag)),
            Err(_) => wrong("true or false"),
        },
        (Kind::Flag, _) => wrong("true or false"),
        (Kind::List, Value::String(text)) => {
            let items: Vec<&str> = text.split(',').map(str::trim).collect();
            match items[..] {
                [""] => Ok(Value::Array(Vec::new())),
                _ if items.contains(&"") => wrong("a list without empty places between its commas"),
                _ => Ok(Value::Array(items.into_iter().map(|item| Value::String(item.to_owned())).collect())),
            }
        }
        (Kind::List, Value::Array(items)) => {
            let text = |item| match item {
                Value::String(text) => Some(Value::String(text)),
                Value::Integer(number) => Some(Value::String(number.to_string())),
                _ => None,
            };
            match items.into_iter().map(text).collect() {
                Some(items) => Ok(Value::Array(items)),
                None => wrong("a list of texts"),
            }
        }
        (Kind::List, _) => wrong("a list"),
    }
}
