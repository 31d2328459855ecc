//! Members go.

use std::time::Duration;

use super::{Answer, Group, Out, Ticket};
use crate::{GroupError, Leaver};

impl Group {
    pub(super) fn leave(&mut self, now: Duration, ticket: Ticket, members: &[Leaver], out: &mut Out) {
        let left = members.iter().map(|leaver| self.let_go(now, leaver, out)).collect();
        out.answer(ticket, Answer::Leave(left));
    }

    fn let_go(&mut self, now: Duration, leaver: &Leaver, out: &mut Out) -> Result<(), GroupError> {
        let id = match &leaver.instance {
            // An administrator knows static members by their names alone.
            Some(instance) if leaver.id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)?
            }
            None if self.pending.remove(&leaver.id).is_some() => return Ok(()),
            instance => {
                self.check_identity(&leaver.id, instance.as_deref())?;
                leaver.id.clone()
            }
        };
        self.remove(now, &id, out);
        Ok(())
    }
}
