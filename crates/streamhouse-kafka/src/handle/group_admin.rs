//! Groups as others see them: described, listed, deleted.

use kacrab_protocol::KafkaString;
use kacrab_protocol::generated as g;
use kacrab_protocol::generated::describe_groups_response::DescribedGroup;
use streamhouse_groups::{GroupAdminError, GroupStatus};
use streamhouse_types::error_code::ErrorCode;

use super::groups::{code_of, parse_group};
use super::{GROUP_OPERATIONS, answer, text};
use crate::codec::DecodeError;
use crate::connection::Answer;
use crate::{Code, Kafka};

/// The state of a group that is not there.
const DEAD: &str = "Dead";
/// The kind of all groups there are: their members share out the partitions among themselves.
const CLASSIC: &str = "classic";

impl Kafka {
    pub(super) async fn describe_groups(
        &self,
        version: i16,
        query: g::DescribeGroupsRequestData,
    ) -> Result<Answer, DecodeError> {
        let mut codes = Vec::new();
        let mut groups = Vec::with_capacity(query.groups.len());
        for id in query.groups {
            let mut described = match self.describe_group(&id).await {
                Ok(described) => described,
                Err(code) => {
                    // Up to version 5 a group that is not there is a dead one.
                    let is_told = version >= 6 || code != ErrorCode::GroupNotFound.into();
                    let code = if is_told { code } else { Code::NONE };
                    let why = text("there is no such group, or it cannot be told");
                    DescribedGroup {
                        error_code: code.get(),
                        error_message: (version >= 6).then_some(why),
                        group_state: if is_told && version < 6 { text("") } else { text(DEAD) },
                        ..Default::default()
                    }
                }
            };
            codes.push(Code::raw(described.error_code));
            described.group_id = id;
            if query.include_authorized_operations && described.error_code == Code::NONE.get() {
                described.authorized_operations = GROUP_OPERATIONS;
            }
            groups.push(described);
        }
        answer(&g::DescribeGroupsResponseData { groups, ..Default::default() }, version, codes)
    }

    async fn describe_group(&self, id: &KafkaString) -> Result<DescribedGroup, Code> {
        let described = self.groups()?.describe(&parse_group(id.as_str())?).await?;
        let GroupStatus { state, protocol_type, protocol, members, .. } = described.status;
        let members = members.into_iter().map(|member| g::DescribedGroupMember {
            member_id: text(&member.id),
            group_instance_id: member.instance.as_deref().map(text),
            client_id: text(&member.client),
            client_host: text(&member.host),
            member_metadata: member.metadata,
            member_assignment: member.assignment,
            ..Default::default()
        });
        Ok(DescribedGroup {
            group_state: text(&state.to_string()),
            protocol_type: text(&protocol_type),
            protocol_data: text(protocol.as_deref().unwrap_or_default()),
            members: members.collect(),
            ..Default::default()
        })
    }

    /// Each node lists the groups that it looks after: clients ask all of them.
    pub(super) async fn list_groups(
        &self,
        version: i16,
        query: g::ListGroupsRequestData,
    ) -> Result<Answer, DecodeError> {
        let mut message = g::ListGroupsResponseData::default();
        let listed = async {
            let groups = self.groups()?;
            Ok::<_, Code>((groups.node(), groups.list().await?))
        };
        let (node, all) = match listed.await {
            Ok(listed) => listed,
            Err(code) => {
                message.error_code = code.get();
                return answer(&message, version, [code]);
            }
        };
        let is_wanted = |filter: &[KafkaString], word: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.as_str().eq_ignore_ascii_case(word))
        };
        // Behind one address, who asks it has asked all.
        let all_here = self.is_single_endpoint();
        if is_wanted(&query.types_filter, CLASSIC) {
            let here = all.into_iter().filter(|group| all_here || group.coordinator == Some(node));
            let told = here.map(|group| g::ListedGroup {
                group_id: text(&group.group.to_string()),
                protocol_type: text(&group.protocol_type),
                group_state: text(&group.state.to_string()),
                group_type: text(CLASSIC),
                ..Default::default()
            });
            let wanted = told.filter(|group| is_wanted(&query.states_filter, group.group_state.as_str()));
            message.groups = wanted.collect();
        }
        answer(&message, version, [])
    }

    pub(super) async fn delete_groups(
        &self,
        version: i16,
        query: g::DeleteGroupsRequestData,
    ) -> Result<Answer, DecodeError> {
        let mut codes = Vec::new();
        let mut results = Vec::with_capacity(query.groups_names.len());
        for group_id in query.groups_names {
            let delete = async {
                let group = parse_group(group_id.as_str())?;
                Ok(self.groups()?.delete(&group, None).await?)
            };
            let code = code_of(delete.await);
            codes.push(code);
            results.push(g::DeletableGroupResult { group_id, error_code: code.get(), ..Default::default() });
        }
        answer(&g::DeleteGroupsResponseData { results, ..Default::default() }, version, codes)
    }
}

impl From<GroupAdminError> for Code {
    fn from(error: GroupAdminError) -> Self {
        error.code().into()
    }
}
