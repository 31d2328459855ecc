//! The settings of topics, changed.

use std::collections::BTreeSet;

use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use kacrab_protocol::generated::{
    alter_configs_response as whole, incremental_alter_configs_response as stepwise,
};
use streamhouse_broker::Mode;
use streamhouse_broker::metadata::{OtherSettings, SettingEdits, SettingStep};
use streamhouse_types::error_code::ErrorCode;

use super::configs::{CLIENT_METRICS, GROUP, LOGGER, NODE, TOPIC};
use super::node_configs;
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
    others: OtherSettings,
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
            Alteration { kind, name, edits, others: OtherSettings::Reset }
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
            Alteration { kind, name, edits, others: OtherSettings::Keep }
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
        let Alteration { kind, name, edits, others } = altered;
        check_edits(edits)?;
        if *kind != TOPIC {
            return self.refuse_edits(altered);
        }
        let name =
            parse_name(name.as_str()).map_err(|code| Refusal::new(code, ErrorCode::InvalidName.hint()))?;
        let steps = edits.iter().map(|edit| Ok((edit.name.clone(), edit.step()?)));
        let steps = steps.collect::<Result<_, Refusal>>()?;
        let edits = SettingEdits { steps, others: *others };
        self.broker().alter_topic(&name, edits, None, mode).await?;
        Ok(())
    }
}

impl Kafka {
    /// Refuses to change what is no topic, by the name of the first setting.
    fn refuse_edits(&self, altered: &Alteration) -> Result<(), Refusal> {
        let Alteration { kind, name, edits, others } = altered;
        match (*kind, others) {
            // All nodes at once.
            (NODE, _) if name.as_str().is_empty() => {}
            (NODE, _) | (LOGGER, OtherSettings::Keep) => self.check_node(name.as_str())?,
            (CLIENT_METRICS | GROUP, _) => {}
            (LOGGER, OtherSettings::Reset) => {
                let message = "what a node logs is not replaced as a whole";
                return Err(Refusal::new(Code::INVALID_REQUEST, message));
            }
            (kind, _) => {
                let message = format!("resources of kind {kind} have no settings here");
                return Err(Refusal::new(Code::INVALID_REQUEST, message));
            }
        }
        let Some(Edit { name, .. }) = edits.first() else { return Ok(()) };
        let message = match *kind {
            NODE => return Err(node_configs::refuse_edit(name)),
            LOGGER => format!(
                "what `{name}` logs cannot be changed from here: set `log.level` in the configuration of the node and \
                 start it again"
            ),
            GROUP => format!(
                "`{name}` is no setting of groups here: each consumer sets its timeouts, within the limits under \
                 `[groups]` in the configuration of the nodes"
            ),
            _ => format!("`{name}` of client metrics cannot be set: no node asks clients for their metrics"),
        };
        Err(Refusal::new(ErrorCode::InvalidSetting, message))
    }
}

impl Edit {
    fn step(&self) -> Result<SettingStep, Refusal> {
        let value = || {
            self.value.clone().ok_or_else(|| {
                let message = format!("null is no value for `{}`", self.name);
                Refusal::new(Code::INVALID_REQUEST, message)
            })
        };
        match self.step {
            SET => value().map(SettingStep::Set),
            DELETE => Ok(SettingStep::Reset),
            APPEND => value().map(SettingStep::Append),
            SUBTRACT => value().map(SettingStep::Subtract),
            step => {
                let message = format!("{step} is nothing that can be done to a setting");
                Err(Refusal::new(Code::INVALID_REQUEST, message))
            }
        }
    }
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
