//! A flag for every setting of a node, made from the server's own table of settings.

use clap::{Arg, ArgMatches, Command};
use streamhouse_server::config::{KEYS, Key, Kind};

/// `section.key` and value of each setting given as a flag.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerSettings(pub(crate) Vec<(String, String)>);

/// The same for `dev`, where some settings have flags of their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct DevSettings(pub(crate) Vec<(String, String)>);

/// The settings that have flags of their own in `dev`.
const DEV_OWN: &str =
    "node.data_dir listeners.kafka listeners.grpc listeners.internal listeners.http store.url";

/// Secrets stand in files and in the environment, never in a list of processes.
fn has_flag(key: &Key) -> bool {
    key.kind != Kind::Secret
}

fn flag(key: &'static Key) -> Arg {
    // The name lives as long as the process, as the table does.
    let dashed: &'static str = Box::leak(key.name.replace('_', "-").into_boxed_str());
    let help = key.help.trim_end_matches('.');
    Arg::new(key.name).long(dashed).alias(key.name).value_name("VALUE").help(help).help_heading("Settings")
}

fn values(matches: &ArgMatches) -> Vec<(String, String)> {
    let given = |key: &Key| {
        let value = matches.try_get_one::<String>(key.name).ok().flatten()?;
        Some((key.name.to_owned(), value.clone()))
    };
    KEYS.iter().filter_map(given).collect()
}

impl clap::Args for ServerSettings {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().filter(|key| has_flag(key)).fold(command, |command, key| command.arg(flag(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ServerSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(values(matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = values(matches);
        Ok(())
    }
}

impl clap::Args for DevSettings {
    fn augment_args(command: Command) -> Command {
        let ours = KEYS.iter().filter(|key| has_flag(key) && !DEV_OWN.split(' ').any(|own| own == key.name));
        ours.fold(command, |command, key| command.arg(flag(key).hide(true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for DevSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(values(matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = values(matches);
        Ok(())
    }
}
