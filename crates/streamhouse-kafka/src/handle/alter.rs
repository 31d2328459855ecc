//! The settings of topics, changed.

use std::collections::{BTreeMap, BTreeSet};

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
use super::{Refusal, answer, text, topic_name};
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

/// A setting, and what is to be done to it.
type Edit = (String, Result<SettingStep, Refusal>);

/// Kafka's numbers for what is done to a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What came of it.
struct Altered {
    kind: i8,
    name: KafkaString,
    code: Code,
    message: Option<KafkaString>,
}

impl Kafka {
    pub(super) async fn alter_configs(
        &self,
        version: i16,
        query: g::AlterConfigsRequestData,
    ) -> Result<Answer, DecodeError> {
        let wanted = query.resources.into_iter().map(|resource| {
            let edits = resource.configs.into_iter().map(|config| edit(&config.name, SET, config.value));
            let (kind, name) = (resource.resource_type, resource.resource_name);
            Alteration { kind, name, edits: edits.collect(), others: OtherSettings::Reset }
        });
        let mode = if query.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        let done = self.alter_all(wanted.collect(), mode).await;
        let codes: Vec<Code> = done.iter().map(|done| done.code).collect();
        let responses = done.into_iter().map(|done| whole::AlterConfigsResourceResponse {
            error_code: done.code.get(),
            error_message: done.message,
            resource_type: done.kind,
            resource_name: done.name,
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
            let edits = resource.configs.into_iter();
            let edits = edits.map(|config| edit(&config.name, config.config_operation, config.value));
            let (kind, name) = (resource.resource_type, resource.resource_name);
            Alteration { kind, name, edits: edits.collect(), others: OtherSettings::Keep }
        });
        let mode = if query.validate_only { Mode::ValidateOnly } else { Mode::Apply };
        let done = self.alter_all(wanted.collect(), mode).await;
        let codes: Vec<Code> = done.iter().map(|done| done.code).collect();
        let responses = done.into_iter().map(|done| stepwise::AlterConfigsResourceResponse {
            error_code: done.code.get(),
            error_message: done.message,
            resource_type: done.kind,
            resource_name: done.name,
            ..Default::default()
        });
        let responses = responses.collect();
        answer(&g::IncrementalAlterConfigsResponseData { responses, ..Default::default() }, version, codes)
    }

    /// Makes the changes, one resource after the other.
    async fn alter_all(&self, wanted: Vec<Alteration>, mode: Mode) -> Vec<Altered> {
        let resource = |altered: &Alteration| (altered.kind, altered.name.to_string());
        let mut times = BTreeMap::<_, u32>::new();
        wanted.iter().for_each(|altered| *times.entry(resource(altered)).or_default() += 1);
        let mut done = Vec::with_capacity(wanted.len());
        for altered in wanted {
            let outcome = match times[&resource(&altered)] {
                1 => self.alter(&altered, mode).await,
                _ => Err(Refusal::request("the resource is named twice in one request")),
            };
            let (code, message) = match outcome {
                Ok(()) => (Code::NONE, None),
                Err(refusal) => (refusal.code, Some(text(&refusal.message))),
            };
            done.push(Altered { kind: altered.kind, name: altered.name, code, message });
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
        let name = topic_name(name.as_str())?;
        let steps = edits.iter().map(|(name, step)| Ok((name.clone(), step.clone()?)));
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
                return Err(Refusal::request("what a node logs is not replaced as a whole"));
            }
            (kind, _) => {
                return Err(Refusal::request(format!("resources of kind {kind} have no settings here")));
            }
        }
        let Some((name, _)) = edits.first() else { return Ok(()) };
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

fn edit(name: &KafkaString, step: i8, value: Option<KafkaString>) -> Edit {
    let null = || Refusal::request(format!("null is no value for `{name}`"));
    let value = value.map(|value| value.to_string()).ok_or_else(null);
    let step = match step {
        SET => value.map(SettingStep::Set),
        DELETE => Ok(SettingStep::Reset),
        APPEND => value.map(SettingStep::Append),
        SUBTRACT => value.map(SettingStep::Subtract),
        step => Err(Refusal::request(format!("{step} is nothing that can be done to a setting"))),
    };
    (name.to_string(), step)
}

/// Checks what holds whatever is edited.
fn check_edits(edits: &[Edit]) -> Result<(), Refusal> {
    if edits.len() > SETTINGS_MAX {
        return Err(Refusal::request(format!("at most {SETTINGS_MAX} settings in one request")));
    }
    let mut names = BTreeSet::new();
    match edits.iter().find(|(name, _)| !names.insert(name)) {
        None => Ok(()),
        Some((name, _)) => Err(Refusal::request(format!("`{name}` is named twice for one resource"))),
    }
}
