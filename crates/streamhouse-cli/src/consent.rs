//! Consent to what cannot be undone, or is less safe than what there is.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;

use crate::failure::{Failure, LocalCode};

/// `--yes`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Consent {
    /// Do not ask: the loss, or the risk, is meant
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Whether `--yes` was given.
    pub(crate) fn is_given(&self) -> bool {
        self.yes
    }

    /// Goes on only if the loss is meant: by `--yes`, or by the name typed back on a terminal.
    ///
    /// # Errors
    /// Without consent.
    pub(crate) fn to(&self, what: &str, name: &str) -> Result<(), Failure> {
        self.in_spite_of(&format!("{what} cannot be undone"), name)
    }

    /// As [`to`](Self::to), of what has this said against it.
    ///
    /// # Errors
    /// Without consent.
    pub(crate) fn in_spite_of(&self, objection: &str, name: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            let message = format!("{objection}, and there is no terminal to ask at");
            return Err(Failure::new(LocalCode::ConsentMissing, message).hint("give --yes if it is meant"));
        }
        let asked = write!(io::stderr(), "{objection}. Type `{name}` to go on: ");
        let mut answer = String::new();
        let answered = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
        if answered.is_ok() && answer.trim() == name {
            return Ok(());
        }
        Err(Failure::new(LocalCode::ConsentMissing, "not confirmed: nothing was done"))
    }
}
