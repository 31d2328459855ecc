//! What nodes say of partitions, and what an audit says of the store.

use std::collections::BTreeSet;

use streamhouse_types::NodeId;

use super::staircase::{Staircase, Step};
use super::{Checker, in_order, position};
use crate::event::{Audit, Micros, Observed};
use crate::history::Refusal;
use crate::report::{Anomaly, Violation};

/// What one node has said of one partition.
#[derive(Debug, Default)]
pub(super) struct NodeView {
    high_watermark: Staircase,
    log_start: Staircase,
}

/// Part of one answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) begin: Micros,
    pub(super) end: Micros,
    pub(super) high_watermark: Option<u64>,
    pub(super) log_start: Option<u64>,
}

impl Checker {
    pub(super) fn observed(&mut self, event: &Observed<'_>) -> Result<(), Refusal> {
        in_order(event.begin, event.end)?;
        let partition = self.partition(&event.partition)?;
        let said = Said {
            begin: event.begin,
            end: event.end,
            high_watermark: Some(position(event.high_watermark)?),
            log_start: Some(position(event.log_start)?),
        };
        self.hear(Some(event.node), partition, said);
        Ok(())
    }

    /// C9: somebody, named or not, says how far a partition is.
    pub(super) fn hear(&mut self, node: Option<NodeId>, partition: u32, said: Said) {
        if let Some(log_start) = said.log_start {
            self.judge_log_start(partition, log_start, said.high_watermark);
        }
        let Some(node) = node else { return };
        let line = self.line;
        let view = self.nodes.entry((node, partition)).or_default();
        let marks = [
            (Anomaly::HighWatermarkBack, "high watermark", said.high_watermark, &mut view.high_watermark),
            (Anomaly::LogStartBack, "log start", said.log_start, &mut view.log_start),
        ];
        for (anomaly, what, value, stairs) in marks {
            let Some(value) = value else { continue };
            self.tally.judged(anomaly, 1);
            // Only answers that were there before this question was asked bind it.
            let before = stairs.before(said.begin.get());
            stairs.raise(Step { point: said.end.get(), value, line });
            let Some(before) = before.filter(|before| before.value > value) else { continue };
            let name = self.partition_names.name(partition);
            self.tally.wrong(anomaly, 1, || {
                let text =
                    format!("node {node} said {what} {value} of {name}, after it had said {}", before.value);
                let violation = Violation::new(anomaly, name, text).offsets(value..before.value);
                violation.line(before.line).line(line)
            });
        }
    }

    /// A log start moves when somebody asks for it, and never beyond the end.
    fn judge_log_start(&mut self, number: u32, log_start: u64, high_watermark: Option<u64>) {
        let partition = &mut self.partitions[number as usize];
        partition.log_start = partition.log_start.max(log_start);
        let (line, name, asked) = (self.line, self.partition_names.name(number), partition.trimmed);
        self.tally.judged(Anomaly::LogStartUnasked, 1);
        if log_start > asked && !self.header.retention {
            self.tally.wrong(Anomaly::LogStartUnasked, 1, || {
                let text =
                    format!("the log start of {name} is {log_start}, a trim was asked for up to {asked}");
                Violation::new(Anomaly::LogStartUnasked, name, text).offsets(asked..log_start).line(line)
            });
        }
        let Some(end) = high_watermark.filter(|end| *end < log_start) else { return };
        self.tally.wrong(Anomaly::LogStartBack, 1, || {
            let text = format!("the log start {log_start} of {name} lies beyond its high watermark {end}");
            Violation::new(Anomaly::LogStartBack, name, text).offsets(end..log_start).line(line)
        });
    }

    /// C15: the store holds what metadata refers to, and nothing that nobody can explain.
    pub(super) fn audit(&mut self, event: &Audit<'_>) {
        self.tally.judged(Anomaly::BucketAudit, 1);
        let Audit { referenced, present, intact, orphans, unexplained, .. } = *event;
        let mut wrong = Vec::new();
        if present != referenced {
            wrong.push(format!("{present} of {referenced} referenced objects are there"));
        }
        if intact != referenced {
            wrong.push(format!("{intact} of {referenced} referenced objects are intact"));
        }
        if let Some(allowed) = event.orphans_allowed.filter(|allowed| orphans > *allowed) {
            wrong.push(format!("{orphans} orphans, {allowed} allowed"));
        }
        if unexplained > 0 {
            wrong.push(format!("{unexplained} objects that nothing explains"));
        }
        wrong.extend(event.faults.iter().take(10).map(ToString::to_string));
        if wrong.is_empty() {
            return;
        }
        let line = self.line;
        self.tally.wrong(Anomaly::BucketAudit, 1, || Violation {
            anomaly: Anomaly::BucketAudit,
            partition: None,
            offsets: None,
            producers: Vec::new(),
            lines: vec![u64::from(line)],
            text: wrong.join("; "),
        });
    }

    pub(super) fn node_count(&self) -> u64 {
        self.nodes.keys().map(|(node, _)| node).collect::<BTreeSet<_>>().len() as u64
    }
}
