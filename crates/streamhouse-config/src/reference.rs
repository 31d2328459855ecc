//! The reference page of the configuration, made from the table of settings.

use std::fmt::Write as _;

use streamhouse_broker::metadata::TopicSettings;

use super::keys::{AWS_VARIABLES, KEYS, NOT_YET};
use super::{ConfigSources, Preset};

/// The settings of topics, which stand in no file: they are given when a topic is made or altered.
const TOPIC_SETTINGS: &str = "\n## Settings of a topic\n\n\
    Given with `streamhouse topic create NAME --set …` and changed with `topic alter`. Others are refused.\n\n\
    | setting | default | what it does |\n|---|---|---|\n";

/// `docs/reference/configuration.md`. A test compares the file with this text.
#[must_use]
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         Made from the table of settings; do not edit. One TOML file (`streamhouse server --config FILE`); every key \
         but secrets also as the flag\n`--section.key` (with `-` for `_`), every key as the variable `STREAMHOUSE_SECTION__KEY`. Flags win over \
         variables, variables over the\nfile, the file over the defaults. An unknown key is an error. \
         `streamhouse server print-config --effective` shows every value\nwith who set it.\n",
    );
    let defaults = defaults();
    let mut section = "";
    for key in KEYS {
        let (room, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if room != section {
            section = room;
            let _ = write!(
                page,
                "\n## `[{room}]`\n\n| key | kind | default | what it does |\n|---|---|---|---|\n"
            );
        }
        let default =
            defaults.iter().find(|(known, _)| *known == key.name).map_or("", |(_, value)| value.as_str());
        let _ = writeln!(page, "| `{name}` | {} | {default} | {} |", key.kind.word(), key.help);
    }
    page.push_str("\n## Stand-ins\n\nVariables of the AWS tools are taken for what nothing else sets; the first that is set wins.\n\n");
    for (variable, name) in AWS_VARIABLES {
        let _ = writeln!(page, "- `{variable}` → `{name}`");
    }
    page.push_str(TOPIC_SETTINGS);
    for setting in TopicSettings::default().list() {
        let _ = writeln!(page, "| `{}` | `{}` | {} |", setting.name, setting.default, setting.meaning);
    }
    page.push_str("\n## Reserved\n\nRefused by name until what they set exists.\n\n");
    for (name, why) in NOT_YET {
        let _ = writeln!(page, "- `{name}`: {why}");
    }
    page
}

/// The built-in defaults as they stand on the page; those that depend on the machine are described in the help.
fn defaults() -> Vec<(&'static str, String)> {
    let flags = vec![("store.url".to_owned(), "s3://bucket/prefix".to_owned())];
    let sources = ConfigSources { preset: Preset::Server, flags, ..ConfigSources::default() };
    let lines = super::print_config(&sources).unwrap_or_default();
    let shown = |line: super::EffectiveValue| {
        let value = match line.key {
            "store.url" => "required".to_owned(),
            "limits.in_flight_bytes" => "see right".to_owned(),
            _ if line.value == "" => "none".to_owned(),
            _ => format!("`{}`", line.value),
        };
        (line.key, value)
    };
    lines.into_iter().map(shown).collect()
}
