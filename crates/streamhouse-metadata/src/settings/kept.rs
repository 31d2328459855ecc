//! Settings that are kept with a topic: what clients set and look up, and what acts on it elsewhere, later, or is met
//! whatever the value.

use std::collections::BTreeMap;

use super::{SettingError, SettingKind, quoted};
use crate::FeatureLevel;

/// One of them.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    allowed: Allowed,
    pub(super) meaning: &'static str,
    /// The level from which on topics have it.
    pub(super) level: FeatureLevel,
}

/// Which values it can have.
enum Allowed {
    /// Whole numbers, both ends included.
    Number(i64, i64),
    /// From 0 to 1.
    Fraction,
    /// Any of these words, each once, with commas between; nothing at all from [`FeatureLevel::EDITED_SETTINGS`] on.
    Words(&'static [&'static str]),
    /// Its default and no other, as that is how things are.
    Only(SettingKind),
}

const fn row(name: &'static str, default: &'static str, allowed: Allowed, meaning: &'static str) -> Row {
    Row { name, default, allowed, meaning, level: FeatureLevel::KEPT_SETTINGS }
}

/// A row that came later.
const fn newer(name: &'static str, default: &'static str, allowed: Allowed, meaning: &'static str) -> Row {
    Row { level: FeatureLevel::MORE_SETTINGS, ..row(name, default, allowed, meaning) }
}

/// The name of the setting that says whether old records or replaced ones go.
pub(super) const CLEANUP_POLICY: &str = "cleanup.policy";
pub(super) const DELETE: &str = "delete";
pub(super) const COMPACT: &str = "compact";

/// By name.
pub(super) const ROWS: &[Row] = &[
    row(
        CLEANUP_POLICY,
        DELETE,
        Allowed::Words(&[COMPACT, DELETE]),
        "`delete`, `compact`, both, or nothing: then records stay for ever. Kept for when there is compaction: until then \
         every record stays. With `compact` alone, records are not deleted on request.",
    ),
    newer(
        "compression.gzip.level",
        "-1",
        Allowed::Number(1, 9),
        "Taken for clients that set it: batches are stored as their producers compressed them.",
    ),
    newer(
        "compression.lz4.level",
        "9",
        Allowed::Number(1, 17),
        "Taken for clients that set it: batches are stored as their producers compressed them.",
    ),
    row(
        "compression.type",
        "producer",
        Allowed::Only(SettingKind::Text),
        "Batches are stored as their producers compressed them.",
    ),
    newer(
        "compression.zstd.level",
        "3",
        Allowed::Number(-131_072, 22),
        "Taken for clients that set it: batches are stored as their producers compressed them.",
    ),
    row(
        "delete.retention.ms",
        "86400000",
        Allowed::Number(0, i64::MAX),
        "How long compaction leaves the mark of a deleted key. Kept for when there is compaction.",
    ),
    newer(
        "file.delete.delay.ms",
        "60000",
        Allowed::Number(0, i64::MAX),
        "Taken for clients that set it: there are no segment files and no index files.",
    ),
    row(
        "flush.messages",
        "9223372036854775807",
        Allowed::Number(1, i64::MAX),
        "Met whatever the value: a record is durable before it is acknowledged.",
    ),
    row(
        "flush.ms",
        "9223372036854775807",
        Allowed::Number(0, i64::MAX),
        "Met whatever the value: a record is durable before it is acknowledged.",
    ),
    newer(
        "follower.replication.throttled.replicas",
        "",
        Allowed::Only(SettingKind::List),
        "Nothing is copied from node to node.",
    ),
    newer(
        "index.interval.bytes",
        "4096",
        Allowed::Number(0, 2_147_483_647),
        "Taken for clients that set it: there are no segment files and no index files.",
    ),
    newer(
        "leader.replication.throttled.replicas",
        "",
        Allowed::Only(SettingKind::List),
        "Nothing is copied from node to node.",
    ),
    newer(
        "local.retention.bytes",
        "-2",
        Allowed::Only(SettingKind::Number),
        "Everything is in the object store; no disk of a node has a part of its own.",
    ),
    newer(
        "local.retention.ms",
        "-2",
        Allowed::Only(SettingKind::Number),
        "Everything is in the object store; no disk of a node has a part of its own.",
    ),
    row(
        "max.compaction.lag.ms",
        "9223372036854775807",
        Allowed::Number(1, i64::MAX),
        "Longest that a record stays uncompacted. Kept for when there is compaction.",
    ),
    row(
        "message.timestamp.after.max.ms",
        "3600000",
        Allowed::Only(SettingKind::Number),
        "How far ahead of the node's clock a record's time may be.",
    ),
    row(
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        Allowed::Only(SettingKind::Number),
        "How far back a record's time may be: without limit.",
    ),
    row(
        "min.cleanable.dirty.ratio",
        "0.5",
        Allowed::Fraction,
        "Share of a partition that is not compacted before it is worth while. Kept for when there is compaction.",
    ),
    row(
        "min.compaction.lag.ms",
        "0",
        Allowed::Number(0, i64::MAX),
        "Shortest that a record stays uncompacted. Kept for when there is compaction.",
    ),
    row(
        "min.insync.replicas",
        "1",
        Allowed::Number(1, 2_147_483_647),
        "Met whatever the value: an acknowledged record is in the object store, which replicates.",
    ),
    row(
        "preallocate",
        "false",
        Allowed::Only(SettingKind::Flag),
        "Objects are written whole; there is nothing to allocate before.",
    ),
    newer(
        "remote.log.copy.disable",
        "false",
        Allowed::Only(SettingKind::Flag),
        "Everything is in the object store; no disk of a node has a part of its own.",
    ),
    newer(
        "remote.log.delete.on.disable",
        "false",
        Allowed::Only(SettingKind::Flag),
        "Everything is in the object store; no disk of a node has a part of its own.",
    ),
    newer(
        "remote.storage.enable",
        "false",
        Allowed::Only(SettingKind::Flag),
        "Everything is in the object store; no disk of a node has a part of its own.",
    ),
    row(
        "retention.bytes",
        "-1",
        Allowed::Number(-1, i64::MAX),
        "Bytes of a partition that stay; -1 for all. Kept for when there is retention: until then every record stays.",
    ),
    row(
        "retention.ms",
        "-1",
        Allowed::Number(-1, i64::MAX),
        "How long records stay; -1 for ever. Kept for when there is retention: until then every record stays.",
    ),
    row(
        "segment.bytes",
        "1073741824",
        Allowed::Number(14, 2_147_483_647),
        "Kept for when objects are merged: until then an object is what one upload carried.",
    ),
    newer(
        "segment.index.bytes",
        "10485760",
        Allowed::Number(4, 2_147_483_647),
        "Taken for clients that set it: there are no segment files and no index files.",
    ),
    newer(
        "segment.jitter.ms",
        "0",
        Allowed::Number(0, i64::MAX),
        "Taken for clients that set it: there are no segment files and no index files.",
    ),
    row(
        "segment.ms",
        "604800000",
        Allowed::Number(1, i64::MAX),
        "Kept for when objects are merged: until then an object is what one upload carried.",
    ),
    row(
        "unclean.leader.election.enable",
        "false",
        Allowed::Only(SettingKind::Flag),
        "No node takes over without every acknowledged record.",
    ),
];

/// The row of this name.
pub(super) fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

impl Row {
    pub(super) fn kind(&self) -> SettingKind {
        match self.allowed {
            Allowed::Number(..) => SettingKind::Number,
            Allowed::Fraction => SettingKind::Fraction,
            Allowed::Words(_) => SettingKind::List,
            Allowed::Only(kind) => kind,
        }
    }

    /// The value as it is kept, when it can be had at this level. Refusals are outcomes, so their texts belong to a level
    /// as well.
    fn parse(&self, level: FeatureLevel, text: &str) -> Result<String, SettingError> {
        let edited = level >= FeatureLevel::EDITED_SETTINGS;
        let parsed = match self.allowed {
            Allowed::Number(least, most) => {
                let number = text.trim().parse::<i64>().ok();
                // Some defaults stand for something that is no number of the range.
                let fits =
                    |number: &i64| (least..=most).contains(number) || number.to_string() == self.default;
                number.filter(fits).map(|number| number.to_string())
            }
            Allowed::Fraction => {
                let share = text.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
                share.map(|share| share.to_string())
            }
            Allowed::Words(_) if edited && text.trim().is_empty() => Some(String::new()),
            Allowed::Words(known) => words(text, known),
            Allowed::Only(SettingKind::Flag) if edited && text.trim().eq_ignore_ascii_case(self.default) => {
                Some(self.default.to_owned())
            }
            Allowed::Only(_) => (text.trim() == self.default).then(|| self.default.to_owned()),
        };
        parsed.ok_or_else(|| SettingError::Value {
            name: self.name.to_owned(),
            value: quoted(text),
            expected: self.expected(level),
        })
    }

    fn expected(&self, level: FeatureLevel) -> String {
        match self.allowed {
            Allowed::Number(least, i64::MAX) => format!("a whole number from {least} on"),
            Allowed::Number(least, most) => format!("a whole number from {least} to {most}"),
            Allowed::Fraction => "a number from 0 to 1".to_owned(),
            Allowed::Words(known) if level >= FeatureLevel::EDITED_SETTINGS => {
                format!("any of {}, each once, or nothing", known.join(", "))
            }
            Allowed::Words(known) => format!("one or more of {}", known.join(", ")),
            Allowed::Only(_) if self.default.is_empty() => "nothing".to_owned(),
            Allowed::Only(_) => format!("{} and nothing else", self.default),
        }
    }
}

fn words(text: &str, known: &[&str]) -> Option<String> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let sound = |place: usize| known.contains(&words[place]) && !words[..place].contains(&words[place]);
    (0..words.len()).all(sound).then(|| words.join(","))
}

/// The values that were set, by name. Of settings that have a place of their own it holds those that were set to their
/// defaults, which nothing else shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeptSettings(BTreeMap<&'static str, String>);

impl KeptSettings {
    /// Whether none was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that were set, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    pub(super) fn set(
        &mut self,
        level: FeatureLevel,
        row: &Row,
        value: Option<&str>,
    ) -> Result<(), SettingError> {
        match value {
            Some(text) => self.put(row.name, row.parse(level, text)?),
            None => self.forget(row.name),
        }
        Ok(())
    }

    pub(super) fn put(&mut self, name: &'static str, value: String) {
        self.0.insert(name, value);
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn get(&self, row: &Row) -> &str {
        self.0.get(row.name).map_or(row.default, String::as_str)
    }
}
