//! Changes that go by what is set at the moment when they are made.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{SettingError, SettingKind, SettingSource, TopicSettings, kept, quoted};

/// What is to be done to the settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingEdits {
    /// Kafka's setting names, each once, and what is done to it.
    pub steps: Vec<(String, SettingStep)>,
    /// What becomes of those that are not named.
    pub others: OtherSettings,
}

/// What is done to one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettingStep {
    /// It gets this value.
    Set(String),
    /// It goes back to its default.
    Reset,
    /// Its list gets those of these words that it does not have yet, at its end.
    Append(String),
    /// Its list loses these words.
    Subtract(String),
}

/// What becomes of settings that are not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtherSettings {
    /// They stay as they are.
    Keep,
    /// They go back to their defaults.
    Reset,
}

impl From<Option<String>> for SettingStep {
    fn from(value: Option<String>) -> Self {
        value.map_or(Self::Reset, Self::Set)
    }
}

impl SettingEdits {
    /// What they come to for a topic that has these settings: new values, `None` for a default.
    ///
    /// # Errors
    /// When words are to be added to a setting that is no list, or taken from it. Other values are not judged.
    pub fn resolve(&self, current: &TopicSettings) -> Result<Vec<(String, Option<String>)>, SettingError> {
        let mut changes = Vec::with_capacity(self.steps.len());
        if self.others == OtherSettings::Reset {
            let set = current.list().into_iter().filter(|setting| setting.source == SettingSource::Topic);
            let unnamed = set.filter(|setting| self.steps.iter().all(|(name, _)| name != setting.name));
            changes.extend(unnamed.map(|setting| (setting.name.to_owned(), None)));
        }
        for (name, step) in &self.steps {
            let value = match step {
                SettingStep::Set(value) => Some(value.clone()),
                SettingStep::Reset => None,
                SettingStep::Append(words) => {
                    let mut list = list_of(current, name)?;
                    // However many words a client sends, each node looks them up while it does nothing else.
                    let mut known: BTreeSet<String> = list.iter().cloned().collect();
                    list.extend(split(words).into_iter().filter(|word| known.insert(word.clone())));
                    Some(list.join(","))
                }
                SettingStep::Subtract(words) => {
                    let (mut list, words) = (list_of(current, name)?, BTreeSet::from_iter(split(words)));
                    list.retain(|word| !words.contains(word));
                    Some(list.join(","))
                }
            };
            changes.push((name.clone(), value));
        }
        Ok(changes)
    }
}

/// The words of a list; empty ones are left out.
fn split(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn list_of(settings: &TopicSettings, name: &str) -> Result<Vec<String>, SettingError> {
    match kept::find(name) {
        Some(row) if row.kind() == SettingKind::List => Ok(split(settings.kept.get(row))),
        Some(_) => Err(SettingError::NotAList { name: quoted(name) }),
        None if TopicSettings::default().own().iter().any(|(own, ..)| *own == name) => {
            Err(SettingError::NotAList { name: quoted(name) })
        }
        None => Err(SettingError::Unsupported { name: quoted(name) }),
    }
}
