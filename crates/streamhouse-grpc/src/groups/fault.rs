//! What callers see of an error of a group.

use streamhouse_groups::{GroupAdminError, GroupError, OffsetRefusal};

use crate::status::Fault;

impl From<&GroupError> for Fault {
    fn from(error: &GroupError) -> Self {
        let fault = Self::of(error.code(), error);
        match error {
            GroupError::Unknown => fault.may_have_happened(),
            GroupError::MemberIdRequired { member } => fault.fact("member_id", member),
            GroupError::InvalidSessionTimeout { .. } => fault.field("session_timeout_ms"),
            _ => fault,
        }
    }
}

impl From<OffsetRefusal> for Fault {
    fn from(refusal: OffsetRefusal) -> Self {
        Self::of(refusal.code(), &refusal)
    }
}

impl From<GroupAdminError> for Fault {
    fn from(error: GroupAdminError) -> Self {
        let fault = Self::of(error.code(), &error);
        match error {
            GroupAdminError::NotFound { group } => {
                fault.about("group", group.as_str()).hint("see the groups with `streamhouse group list`")
            }
            GroupAdminError::NotEmpty { group } => {
                let hint = format!("stop its consumers; `streamhouse group describe {group}` names them");
                fault.about("group", group.as_str()).hint(hint)
            }
            GroupAdminError::Unknown(_) => fault.may_have_happened(),
            _ => fault,
        }
    }
}
