//! The history of a campaign: every part of it writes to one recorder, and the checker judges what it wrote.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use streamhouse_check::{Audit, Event, Header, History, Micros, Recorder, Report};
use streamhouse_client::VerifyProgress;
use tokio::time::Instant;

/// A history that is being written to a file.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    recorder: Recorder,
}

impl Recording {
    /// Begins a history in this folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("history.ndjson");
        let start = Instant::now();
        let clock = move || Micros::new(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        let recorder = Recorder::to_file(&path, &Header::default(), clock)?;
        Ok(Self { path, recorder })
    }

    /// What the parts of the campaign write to.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Writes down what a check of the store has found.
    pub fn audited(&self, verified: &VerifyProgress) {
        let harmed: std::collections::BTreeSet<&str> =
            verified.faults.iter().map(|fault| fault.object_id.as_str()).collect();
        self.recorder.record(&Event::Audit(Audit {
            at: self.recorder.now(),
            referenced: verified.objects_total,
            present: verified.objects_checked,
            intact: verified.objects_checked.saturating_sub(harmed.len() as u64),
            orphans: verified.orphans,
            faults: verified
                .faults
                .iter()
                .map(|fault| format!("{}: {}", fault.object_id, fault.what).into())
                .collect(),
            ..Audit::default()
        }));
    }

    /// Ends the history and judges it.
    ///
    /// # Errors
    /// When it shows a violation, with all of them; a history that does is kept beside the temporary files. And when
    /// there was nothing to judge.
    pub fn judge(&self) -> anyhow::Result<Report> {
        self.recorder.finish()?;
        let report = History::check(BufReader::new(File::open(&self.path)?))?;
        if !report.is_clean() {
            let kept =
                std::env::temp_dir().join(format!("streamhouse-history-{}.ndjson", std::process::id()));
            std::fs::copy(&self.path, &kept)?;
            bail!("{report}the history is in {}", kept.display());
        }
        ensure!(report.complete && report.counts.acked > 0 && report.counts.final_reads > 0, "{report}");
        Ok(report)
    }
}
