//! The greatest value known up to a point, where points come in almost their own order.

/// Answers "what was the greatest value before this point?" in bounded memory. Used with times ("the highest offset
/// acknowledged before this append began") and with tokens ("the highest offset that this token stands for").
///
/// The older a step, the fewer of its neighbours are kept. What is dropped makes the answer smaller, never greater: a
/// check that uses it may miss something that began very long ago, and never accuses wrongly.
#[derive(Debug, Default)]
pub(super) struct Staircase {
    /// Points and values both rise strictly.
    steps: Vec<Step>,
}

/// From `point` on, the greatest value is `value`, as `line` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) point: u64,
    pub(super) value: u64,
    pub(super) line: u32,
}

impl Staircase {
    const STEPS_MAX: usize = 1024;

    /// At `step.point` the value was at least `step.value`.
    pub(super) fn raise(&mut self, step: Step) {
        // Most steps come at the end, and many of those say nothing new.
        let at = match self.steps.last() {
            Some(last) if last.point < step.point => self.steps.len(),
            _ => self.steps.partition_point(|known| known.point < step.point),
        };
        if at > 0 && self.steps[at - 1].value >= step.value {
            return;
        }
        if self.steps.get(at).is_some_and(|known| known.point == step.point && known.value >= step.value) {
            return;
        }
        // What lies at or after this point and is not higher is outdone.
        let outdone = self.steps[at..].iter().take_while(|known| known.value <= step.value).count();
        self.steps.splice(at..at + outdone, [step]);
        if self.steps.len() >= Self::STEPS_MAX {
            self.thin();
        }
    }

    /// The greatest value at a point before `point`.
    pub(super) fn before(&self, point: u64) -> Option<Step> {
        let at = match self.steps.last() {
            Some(last) if last.point < point => self.steps.len(),
            _ => self.steps.partition_point(|step| step.point < point),
        };
        at.checked_sub(1).map(|at| self.steps[at])
    }

    /// Drops every second step of the older half.
    fn thin(&mut self) {
        let mut place = 0;
        self.steps.retain(|_| {
            place += 1;
            place > Self::STEPS_MAX / 2 || place % 2 == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(point: u64, value: u64) -> Step {
        Step { point, value, line: 0 }
    }

    fn value_before(stairs: &Staircase, point: u64) -> Option<u64> {
        stairs.before(point).map(|step| step.value)
    }

    #[test]
    fn the_greatest_value_before_a_point_is_found_in_whatever_order_they_came() {
        let mut stairs = Staircase::default();
        for (point, value) in [(10, 5), (30, 9), (20, 7), (25, 6), (30, 8), (40, 9), (20, 7), (35, 12)] {
            stairs.raise(step(point, value));
        }
        assert_eq!(value_before(&stairs, 10), None);
        assert_eq!(value_before(&stairs, 11), Some(5));
        assert_eq!(value_before(&stairs, 21), Some(7));
        assert_eq!(value_before(&stairs, 30), Some(7));
        assert_eq!(value_before(&stairs, 31), Some(9));
        assert_eq!(value_before(&stairs, u64::MAX), Some(12));
        assert!(
            stairs.steps.windows(2).all(|two| two[0].point < two[1].point && two[0].value < two[1].value)
        );
    }

    #[test]
    fn memory_is_bounded_and_the_answer_never_too_great() {
        let mut stairs = Staircase::default();
        for point in 0..100_000 {
            stairs.raise(step(point, point * 2));
            assert!(stairs.steps.len() < Staircase::STEPS_MAX);
        }
        for point in (1..=100_000).step_by(77) {
            let found = value_before(&stairs, point).unwrap_or(0);
            assert!(found <= (point - 1) * 2);
            // The newest are all there.
            assert!(point < 100_000 - 500 || found == (point - 1) * 2);
        }
    }
}
