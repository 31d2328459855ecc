//! The settings of topics, changed.

use std::collections::BTreeSet;

use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use kacrab_protocol::generated::{
    alter_configs_response as whole, incremental_alter_configs_response as stepwise,
};
use streamhouse_broker::Mode;
use streamhouse_broker::metadata::{Setting, SettingKind, SettingSource};
use streamhouse_types::error_code::ErrorCode;

use super::configs::{NODE, TOPIC};
use super::topics::SETTINGS_MAX;
use super::{Refusal, answer, parse_name, text};
use crate::codec::DecodeError;
use crate::connection::Answer;
use crate::{Code, Kafka};

/// What a request wants changed at one resource.
struct Alteration {
    kind: i8,
    name: KafkaString,
    edits: Vec<Edit>,
    rest: Rest,
}

/// One setting with its new value, or what is to be done to it.
struct Edit {
    name: String,
    /// Kafka's number: 0 sets, 1 deletes, 2 appends, 3 subtracts.
    step: i8,
    value: Option<String>,
}

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What becomes of settings that are not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// They go back to their defaults.
    Reset,
    /// They stay.
    Keep,
}

impl Kafka {
    pub(super) async fn alter_configs(
        &self,
        version: i16,
        query: g::AlterConfigsRequestData,
    ) -> Result<Answer, DecodeError> {
        let wanted = query.resources.into_iter().map(|resource| {
            let edit = |config: g::alter_configs_request::AlterableConfig| Edit {
                name: config.name.to_string(),
                step: SET,
                value: config.value.map(|value| value.to_string()),
            };
            let edits = resource.configs.into_iter().map(edit).collect();
            let (kind, name) = (resource.resource_type, resource.resource_name);
            Alteration { kind, name, edits, rest: Rest::Reset }
        });
        let mode = if query.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        let done = self.alter_all(wanted.collect(), mode).await;
        let codes: Vec<Code> = done.iter().map(|(_, refusal)| code_of(refusal)).collect();
        let responses = done.into_iter().map(|(altered, refusal)| whole::AlterConfigsResourceResponse {
            error_code: code_of(&refusal).get(),
            error_message: refusal.map(|refusal| text(&refusal.message)),
            resource_type: altered.kind,
            resource_name: altered.name,
            ..Default::default()
        });
        let responses = responses.collect();
        answer(&g::AlterConfigsResponseData { responses, ..Default::default() }, version, codes)
    }

    /// Answers IncrementalAlterConfigs.
    pub(super) async fn alter_configs_by_step(
        &self,
        version: i16,
        query: g::IncrementalAlterConfigsRequestData,
    ) -> Result<Answer, DecodeError> {
        let wanted = query.resources.into_iter().map(|resource| {
            let edit = |config: g::incremental_alter_configs_request::AlterableConfig| Edit {
                name: config.name.to_string(),
                step: config.config_operation,
                value: config.value.map(|value| value.to_string()),
            };
            let edits = resource.configs.into_iter().map(edit).collect();
            let (kind, name) = (resource.resource_type, resource.resource_name);
            Alteration { kind, name, edits, rest: Rest::Keep }
        });
        let mode = if query.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        let done = self.alter_all(wanted.collect(), mode).await;
        let codes: Vec<Code> = done.iter().map(|(_, refusal)| code_of(refusal)).collect();
        let responses = done.into_iter().map(|(altered, refusal)| stepwise::AlterConfigsResourceResponse {
            error_code: code_of(&refusal).get(),
            error_message: refusal.map(|refusal| text(&refusal.message)),
            resource_type: altered.kind,
            resource_name: altered.name,
            ..Default::default()
        });
        let responses = responses.collect();
        answer(&g::IncrementalAlterConfigsResponseData { responses, ..Default::default() }, version, codes)
    }

    /// Makes the changes, one resource after the other; tells why one was not made.
    async fn alter_all(&self, wanted: Vec<Alteration>, mode: Mode) -> Vec<(Alteration, Option<Refusal>)> {
        let mut seen = BTreeSet::new();
        let mut twice = BTreeSet::new();
        for altered in &wanted {
            let resource = (altered.kind, altered.name.to_string());
            if !seen.insert(resource.clone()) {
                twice.insert(resource);
            }
        }
        let mut done = Vec::with_capacity(wanted.len());
        for altered in wanted {
            let refusal = if twice.contains(&(altered.kind, altered.name.to_string())) {
                Some(Refusal::new(Code::INVALID_REQUEST, "the resource is named twice in one request"))
            } else {
                self.alter(&altered, mode).await.err()
            };
            done.push((altered, refusal));
        }
        done
    }

    async fn alter(&self, altered: &Alteration, mode: Mode) -> Result<(), Refusal> {
        self.refuse_when_draining()?;
        let Alteration { kind, name, edits, rest } = altered;
        check_edits(edits)?;
        match (*kind, edits.first()) {
            (TOPIC, _) => {}
            (NODE, None) => return Ok(()),
            (NODE, Some(edit)) => {
                let message = format!("`{}` of a node is set in its configuration, not here", edit.name);
                return Err(Refusal::new(ErrorCode::InvalidSetting, message));
            }
            (kind, _) => {
                let message = format!("resources of kind {kind} have no settings here");
                return Err(Refusal::new(Code::INVALID_REQUEST, message));
            }
        }
        let name =
            parse_name(name.as_str()).map_err(|code| Refusal::new(code, ErrorCode::InvalidName.hint()))?;
        let current = self.broker().topic(&name).await?.settings.list();
        let mut changes = Vec::with_capacity(edits.len());
        if *rest == Rest::Reset {
            let set = current.iter().filter(|setting| setting.source == SettingSource::Topic);
            let unnamed = set.filter(|setting| edits.iter().all(|edit| edit.name != setting.name));
            changes.extend(unnamed.map(|setting| (setting.name.to_owned(), None)));
        }
        for edit in edits {
            changes.push((edit.name.clone(), edit.outcome(&current)?));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.broker().alter_topic(&name, changes, None, mode).await?;
        Ok(())
    }
}

impl Edit {
    /// The value that the setting gets; `None` for its default.
    fn outcome(&self, current: &[Setting]) -> Result<Option<String>, Refusal> {
        let value = || {
            self.value.clone().ok_or_else(|| {
                let message = format!("null is no value for `{}`", self.name);
                Refusal::new(Code::INVALID_REQUEST, message)
            })
        };
        match self.step {
            SET => value().map(Some),
            DELETE => Ok(None),
            APPEND | SUBTRACT => {
                let value = value()?;
                let is_it =
                    |setting: &&Setting| setting.name == self.name && setting.kind == SettingKind::List;
                let list = current.iter().find(is_it).ok_or_else(|| {
                    let message = format!("`{}` is no list of values", self.name);
                    Refusal::new(ErrorCode::InvalidSetting, message)
                })?;
                Ok(Some(edited(&list.value, &value, self.step)))
            }
            step => {
                let message = format!("{step} is nothing that can be done to a setting");
                Err(Refusal::new(Code::INVALID_REQUEST, message))
            }
        }
    }
}

/// A list with the words of another one appended, unless they are there, or taken out.
fn edited(list: &str, words: &str, step: i8) -> String {
    let split = |text: &str| -> Vec<String> {
        text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
    };
    let (mut all, words) = (split(list), split(words));
    if step == SUBTRACT {
        all.retain(|word| !words.contains(word));
    } else {
        for word in words {
            if !all.contains(&word) {
                all.push(word);
            }
        }
    }
    all.join(",")
}

/// Checks what holds whatever is edited.
fn check_edits(edits: &[Edit]) -> Result<(), Refusal> {
    if edits.len() > SETTINGS_MAX {
        let message = format!("at most {SETTINGS_MAX} settings in one request");
        return Err(Refusal::new(Code::INVALID_REQUEST, message));
    }
    let mut names = BTreeSet::new();
    match edits.iter().find(|edit| !names.insert(&edit.name)) {
        None => Ok(()),
        Some(edit) => {
            let message = format!("`{}` is named twice for one resource", edit.name);
            Err(Refusal::new(Code::INVALID_REQUEST, message))
        }
    }
}

fn code_of(refusal: &Option<Refusal>) -> Code {
    refusal.as_ref().map_or(Code::NONE, |refusal| refusal.code)
}
