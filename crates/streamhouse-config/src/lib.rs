//! The configuration: read from a file, the environment and flags, checked once, then plain data.
//!
//! Architecture invariant: the only crate that looks at files and variables for settings. It knows what can be set and
//! what a value trades, and nothing of what is done with it.

mod level;

mod keys;
mod layers;
mod problem;
mod reference;
mod rooms;
mod sections;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use keys::{KEYS, Key, Kind};
pub use layers::Origin;
pub use level::check_level;
pub use problem::{ConfigError, Problem};
pub use reference::reference_page;
pub use sections::{
    CleaningSettings, ClusterSettings, KafkaAdvertise, LimitSettings, ListenerSettings, LogFormat,
    LogSettings, NodeSettings, TopicDefaults, WalSettings,
};

use layers::{Given, Layers, nested};
use streamhouse_groups::GroupSettings;
use streamhouse_storage::StoreSettings;

/// What a command starts from before anything else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    /// A node of a cluster: the store must be named.
    #[default]
    Server,
    /// One node for trying out: records lie in `store/` of the data directory, the first write makes a topic.
    Dev,
}

/// Where a configuration comes from. Flags win over the environment, that over the file, that over the defaults.
#[derive(Debug, Clone, Default)]
pub struct ConfigSources {
    /// What the command starts from.
    pub preset: Preset,
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The process environment, or what a test puts in its place.
    pub environment: BTreeMap<String, String>,
    /// `section.key` and its value, as given on the command line.
    pub flags: Vec<(String, String)>,
}

impl ConfigSources {
    /// Sources with the environment of this process. Variables that are not Unicode are passed over.
    #[must_use]
    pub fn of_process(preset: Preset) -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment = std::env::vars_os().filter_map(unicode).collect();
        Self { preset, file: None, environment, flags: Vec::new() }
    }
}

/// The configuration of a node, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who the node is.
    pub node: NodeSettings,
    /// What it listens on.
    pub listeners: ListenerSettings,
    /// How the cluster comes to be.
    pub cluster: ClusterSettings,
    /// Where records are kept.
    pub store: StoreSettings,
    /// When batches are uploaded.
    pub wal: WalSettings,
    /// How the store is kept clean.
    pub storage: CleaningSettings,
    /// What new topics look like.
    pub topics: TopicDefaults,
    /// How consumer groups wait for their members, and how long they are kept.
    pub groups: GroupSettings,
    /// What bounds memory and connections.
    pub limits: LimitSettings,
    /// What is logged.
    pub log: LogSettings,
}

/// One line of `print-config --effective`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveValue {
    /// `section.key`.
    pub key: &'static str,
    /// The value, whose text is also how TOML would write it; `"…"` for a secret that is set.
    pub value: serde_json::Value,
    /// Who set it, such as `default` or `environment STREAMHOUSE_LOG__LEVEL`.
    pub origin: String,
}

/// Reads and checks a configuration.
///
/// # Errors
/// With everything that is wrong at once.
pub fn check_config(sources: &ConfigSources) -> Result<Config, ConfigError> {
    load(sources).map(|(config, _)| config)
}

/// Every setting with the value in force and who set it, in the order of the reference page.
///
/// # Errors
/// As [`check_config`].
pub fn print_config(sources: &ConfigSources) -> Result<Vec<EffectiveValue>, ConfigError> {
    let (config, layers) = load(sources)?;
    let values = serde_json::to_value(&config).expect("plain data");
    let line = |key: &'static Key| {
        let (section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        let value = match (key.kind, &values[section][name]) {
            (_, serde_json::Value::Null) => "".into(),
            (Kind::Secret, value) if value.as_str().is_none_or(|text| !text.is_empty()) => "…".into(),
            (_, value) => value.clone(),
        };
        let origin = layers.values.get(key.name).map_or(Origin::Default, |given| given.origin.clone());
        EffectiveValue { key: key.name, value, origin: origin.to_string() }
    };
    Ok(KEYS.iter().map(line).collect())
}

fn load(sources: &ConfigSources) -> Result<(Config, Layers), ConfigError> {
    let mut layers = Layers::default();
    if sources.preset == Preset::Dev {
        layers.text("topics.auto_create", "true", Origin::Preset("dev"));
        layers.text("groups.initial_rebalance_delay", "0s", Origin::Preset("dev"));
        layers.text("log.level", "warn", Origin::Preset("dev"));
    }
    layers.aws(&sources.environment);
    if let Some(path) = &sources.file {
        match std::fs::read_to_string(path) {
            Ok(text) => layers.file(path, &text),
            Err(error) => {
                layers.problems.push(Problem::Unreadable { path: path.clone(), message: error.to_string() });
            }
        }
    }
    layers.environment(&sources.environment);
    for (name, value) in &sources.flags {
        let flag = format!("--{}", name.replace('_', "-"));
        layers.text(name, value, Origin::Flag(flag));
    }
    if !layers.problems.is_empty() {
        return Err(ConfigError { problems: layers.problems });
    }
    let mut config: Config = match serde_json::from_value(layers.tables()) {
        Ok(config) => config,
        Err(_) => return Err(ConfigError { problems: misfits(&layers) }),
    };
    config.fill(sources.preset);
    let problems = config.validate();
    if problems.is_empty() { Ok((config, layers)) } else { Err(ConfigError { problems }) }
}

/// The values that are of their key's kind and still nothing that the setting can be, such as a number beyond its range.
fn misfits(layers: &Layers) -> Vec<Problem> {
    let misfit = |(key, given): (&&'static str, &Given)| {
        let error = serde_json::from_value::<Config>(nested([(*key, given)])).err()?;
        let why = format!("cannot be {} ({}): {error}", given.value, given.origin);
        Some(Problem::Invalid { key, why })
    };
    layers.values.iter().filter_map(misfit).collect()
}
