//! A pass is worth as much as the controls of its checks.

use super::{CheckResult, Judgement, Verdict};

/// A check whose control was not caught by it on the same subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproven {
    /// Its name.
    pub check: String,
    /// Which control, and what became of it.
    pub why: String,
}

impl Verdict {
    /// Refuses a pass that rests on these: it becomes inconclusive, and says why. What failed stays failed.
    pub fn refuse(&mut self, unproven: &[Unproven]) {
        if self.judgement != Judgement::Pass {
            return;
        }
        let mut refused = Vec::new();
        for f in self.findings.iter_mut().filter(|f| f.result == CheckResult::Holds) {
            if let Some(u) = unproven.iter().find(|u| u.check == f.check) {
                f.result = CheckResult::Undecided;
                f.message = format!("{} seemed to hold ({}), but {} on this Envoy", f.check, f.message, u.why);
                refused.push(f.message.clone());
            }
        }
        let Some(first) = refused.first() else { return };
        self.judgement = Judgement::Inconclusive;
        self.headline = match refused.len() {
            1 => first.clone(),
            n => format!("{first} (and {} more)", n - 1),
        };
        self.missing.extend(refused);
    }
}
