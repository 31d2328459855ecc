//! What the fuzz target `history` does with each input.

use streamhouse_check::{Anomaly, Checker, Event, History, HistoryError, Report};

/// Judges the bytes as a history, and once more with a header put in front, so that the events are reached.
pub(crate) fn run(data: &[u8]) {
    judge(data);
    let mut headed = b"{\"history\":{\"version\":1}}\n".to_vec();
    headed.extend_from_slice(data);
    judge(&headed);
}

fn judge(bytes: &[u8]) {
    if let Ok(report) = History::check(bytes) {
        taken(&report);
    }
    let Ok(mut history) = History::open(bytes) else { return };
    let mut checker = Some(Checker::new(history.header()));
    loop {
        match history.next_event() {
            Ok(None) => break,
            Ok(Some(event)) => {
                let text = serde_json::to_string(&event).expect("it was read from text");
                assert_eq!(serde_json::from_str::<Event<'_>>(&text).expect("it was written here"), event);
                // After a refusal a checker is of no more use.
                checker = checker.and_then(|mut checker| checker.observe(&event).is_ok().then_some(checker));
            }
            Err(HistoryError::Refused { line, .. }) => assert_eq!(line, history.line()),
            Err(HistoryError::Io { .. }) => unreachable!("memory can be read"),
        }
    }
    if let Some(checker) = checker {
        // Nothing is set aside because of a number that a line names.
        let bytes_max = 64 * bytes.len() + (256 << 10);
        assert!(checker.record_bytes() <= bytes_max, "{} bytes for {}", checker.record_bytes(), bytes.len());
    }
}

fn taken(report: &Report) {
    assert_eq!(report.is_clean(), report.total() == 0);
    assert_eq!(report.is_clean(), report.violations.is_empty());
    assert!(report.violations.len() <= Report::SHOWN * Anomaly::ALL.len());
    assert!(!report.to_string().is_empty());
    serde_json::to_string(report).expect("a report is text");
}
