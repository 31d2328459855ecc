//! What was found.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was not looked at.
    Skipped,
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warn,
    /// Clients cannot work like this.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// How it ended.
    pub verdict: Verdict,
    /// What was tried and what came of it.
    pub what: String,
    /// How long that took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<f64>,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// A check that ended like this.
    #[must_use]
    pub fn new(verdict: Verdict, what: impl Into<String>) -> Self {
        Self { verdict, what: what.into(), took_ms: None, fix: None }
    }

    pub(crate) fn ok(what: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, what)
    }

    pub(crate) fn skipped(what: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, what)
    }

    pub(crate) fn warn(what: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, what)
    }

    pub(crate) fn fail(what: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, what)
    }

    pub(crate) fn took(self, took: Duration) -> Self {
        // Rounded to microseconds, so that the text is short.
        Self { took_ms: Some((took.as_secs_f64() * 1e6).round() / 1e3), ..self }
    }

    pub(crate) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// All checks, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// The cluster that was found.
    pub cluster_id: Option<String>,
    /// The checks.
    pub checks: Vec<Finding>,
}

impl Report {
    /// The worst that was found.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let verdict = match check.verdict {
                Verdict::Skipped => "skip ",
                Verdict::Ok => "ok   ",
                Verdict::Warn => "warn ",
                Verdict::Fail => "FAIL ",
            };
            write!(f, "{verdict} {}", check.what)?;
            if let Some(took) = check.took_ms {
                write!(f, "  ({took:.1} ms)")?;
            }
            writeln!(f)?;
            if let Some(fix) = &check.fix {
                writeln!(f, "      {fix}")?;
            }
        }
        Ok(())
    }
}
