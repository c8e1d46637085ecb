//! Which checks are proven on a subject: their controls ran there, and were caught by them.

use std::collections::BTreeMap;

use crate::plan::CellReport;
use crate::scenario::Role;
use crate::timeline::EnvoySubject;
use crate::verdict::{CHECKS, CheckResult, Unproven};

/// What is not proven, by subject. Of a subject that is not in it, nothing is.
pub(crate) type Proofs = BTreeMap<EnvoySubject, Vec<Unproven>>;

/// Looks at the controls among these, for every one of the subjects.
pub(crate) fn proofs(subjects: impl Iterator<Item = EnvoySubject>, reports: &[CellReport]) -> Proofs {
    subjects
        .map(|subject| {
            let unproven = unproven(reports, &subject);
            (subject, unproven)
        })
        .collect()
}

fn unproven(reports: &[CellReport], subject: &EnvoySubject) -> Vec<Unproven> {
    let control = |name: &str| {
        reports.iter().find(|c| c.role == Role::Control && c.subject.envoy == *subject && c.scenario.as_str() == name)
    };
    let missed = |check: &str, name: &str| match control(name) {
        None => Some(format!("its control {name} did not run")),
        Some(cell) => match &cell.verdict {
            None => Some(format!("its control {name} gave no verdict")),
            Some(_) if !cell.as_expected => Some(format!("its control {name} was not caught as it should be")),
            Some(v) if !v.findings.iter().any(|f| f.check == check && f.result == CheckResult::Violated) => {
                Some(format!("its control {name} was not caught by it"))
            }
            Some(_) => None,
        },
    };
    let reason = |check: &crate::verdict::Check| check.controls.iter().find_map(|name| missed(check.name, name));
    CHECKS.iter().filter_map(|c| Some(Unproven { check: c.name.to_owned(), why: reason(c)? })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sample;
    use crate::plan::Outcome;
    use crate::verdict::{Finding, Judgement};

    fn caught(check: &crate::verdict::Check, control: &str) -> CellReport {
        let mut cell = sample::cell(control, "1.38.3", Role::Control, Outcome::Fail, true);
        let violated = |name: &str| Finding {
            check: name.to_owned(),
            result: CheckResult::Violated,
            proxy: None,
            secret: None,
            message: "violated".into(),
            evidence: Vec::new(),
        };
        cell.verdict.as_mut().unwrap().findings = vec![violated(check.name)];
        cell
    }

    fn subjects(cells: &[CellReport]) -> impl Iterator<Item = EnvoySubject> {
        cells.iter().map(|cell| cell.subject.envoy.clone())
    }

    /// A control may prove several checks.
    fn all_caught() -> Vec<CellReport> {
        let mut cells: BTreeMap<&str, CellReport> = BTreeMap::new();
        for check in CHECKS {
            for control in check.controls {
                let one = caught(check, control);
                let findings = one.verdict.as_ref().unwrap().findings.clone();
                let cell = cells.entry(control).or_insert_with(|| CellReport { verdict: one.verdict.clone(), ..one });
                cell.verdict.as_mut().unwrap().findings.extend(findings);
            }
        }
        cells.into_values().collect()
    }

    #[test]
    fn what_was_caught_by_its_check_is_proven_there_and_nowhere_else() {
        let mut cells = all_caught();
        cells.push(sample::cell("rotation", "1.36.4", Role::Conformance, Outcome::Pass, true));
        let proofs = proofs(subjects(&cells), &cells);
        let of = |version: &str| &proofs[&sample::subject(version).envoy];
        assert_eq!(of("1.38.3"), &[]);
        let expected = CHECKS.iter().filter(|c| !c.controls.is_empty()).count();
        assert!(expected > 0);
        assert_eq!(of("1.36.4").len(), expected);
        assert!(of("1.36.4").iter().all(|u| u.why.contains("did not run")));
    }

    #[test]
    fn a_control_that_was_missed_or_caught_by_something_else_proves_nothing() {
        let whys = |edit: &dyn Fn(&mut CellReport)| {
            let mut cells = all_caught();
            cells.iter_mut().for_each(edit);
            let all = proofs(subjects(&cells), &cells).into_values().flatten().map(|u| u.why).collect::<Vec<_>>();
            assert!(!all.is_empty());
            all
        };
        let missed = whys(&|cell| cell.as_expected = false);
        assert!(missed.iter().all(|why| why.ends_with("was not caught as it should be")), "{missed:?}");
        let other = whys(&|cell| cell.verdict.as_mut().unwrap().findings.clear());
        assert!(other.iter().all(|why| why.ends_with("was not caught by it")), "{other:?}");
        let none = whys(&|cell| cell.verdict = None);
        assert!(none.iter().all(|why| why.ends_with("gave no verdict")), "{none:?}");
    }

    #[test]
    fn a_refused_pass_says_which_control_is_missing() {
        let mut verdict = sample::verdict(Judgement::Pass);
        verdict.findings[0].check = "both_roles_fresh".into();
        let unproven = |check: &str| {
            vec![Unproven { check: check.into(), why: "its control expired-on-arrival did not run".into() }]
        };
        verdict.refuse(&unproven("accepted"));
        assert_eq!(verdict.judgement, Judgement::Pass, "that check did not pass here");
        verdict.refuse(&unproven("both_roles_fresh"));
        assert_eq!(verdict.judgement, Judgement::Inconclusive);
        assert_eq!(verdict.findings[0].result, CheckResult::Undecided);
        assert!(verdict.headline.contains("expired-on-arrival did not run"), "{}", verdict.headline);
        let failed = sample::verdict(Judgement::Fail);
        let mut same = failed.clone();
        same.refuse(&unproven("both_roles_fresh"));
        assert_eq!(same, failed);
    }
}
