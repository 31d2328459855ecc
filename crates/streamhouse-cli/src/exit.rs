//! How the process ends: a closed set of exit codes that scripts may rely on.

use std::process::ExitCode;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// A bug, or nothing that has a code of its own.
    Unclassified,
    /// Wrong usage, a bad value, or no consent to something destructive.
    Usage,
    /// Not found.
    NotFound,
    /// Exists already, conflicts, or a precondition does not hold.
    Conflict,
    /// Not allowed, or not authenticated.
    Denied,
    /// Unreachable or too late: try again.
    Unreachable,
    /// A check failed.
    CheckFailed,
    /// Some of it was done.
    Partial,
    /// What was compared differs.
    Differs,
    /// Interrupted by the user.
    Interrupted,
}

impl Exit {
    /// Every way to end, in the order of the numbers.
    pub(crate) const ALL: [Self; 11] = [
        Self::Done,
        Self::Unclassified,
        Self::Usage,
        Self::NotFound,
        Self::Conflict,
        Self::Denied,
        Self::Unreachable,
        Self::CheckFailed,
        Self::Partial,
        Self::Differs,
        Self::Interrupted,
    ];

    /// The number the process ends with.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unclassified => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Denied => 5,
            Self::Unreachable => 6,
            Self::CheckFailed => 7,
            Self::Partial => 8,
            Self::Differs => 9,
            Self::Interrupted => 130,
        }
    }

    /// The exit that has this number; [`Exit::Unclassified`] for a number that means nothing.
    pub(crate) fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::Unclassified)
    }

    /// What it means, for the reference page.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unclassified => "a bug, or nothing that has a code of its own",
            Self::Usage => "wrong usage, a bad value, or no consent to something destructive",
            Self::NotFound => "not found",
            Self::Conflict => "exists already, conflicts, or a precondition does not hold",
            Self::Denied => "not allowed, or not authenticated",
            Self::Unreachable => "unreachable or too late: try again",
            Self::CheckFailed => "a check failed",
            Self::Partial => "partial success",
            Self::Differs => "what was compared differs",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
