//! The failure modes: what each is, how it is told from the others, and what to do about it.
//!
//! A table, in the order of `docs/reference/failure-modes.md`. The judge names modes from it, a scenario expects one,
//! and `rotacheck explain` prints it.

use crate::timeline::Layer;

mod table;

pub use table::MODES;

/// A way in which the rotation of certificates over SDS fails, or is suspected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// What a diagnosis says: `resend-cached`.
    pub name: &'static str,
    /// Row of the reference; variants of one mode share it.
    pub number: &'static str,
    /// The layer to blame; `None`: no failure by itself, or an overlay that hides another one.
    pub layer: Option<Layer>,
    /// A few words.
    pub title: &'static str,
    /// What happens.
    pub meaning: &'static str,
    /// Why anybody should care.
    pub why_it_matters: &'static str,
    /// The observations that tell it apart.
    pub evidence: &'static str,
    /// What it is taken for while evidence is missing.
    pub looks_like: &'static [LooksLike],
    /// What the person on call does in the next five minutes.
    pub first_aid: &'static str,
    /// What makes it go away.
    pub lasting_fix: &'static str,
    /// Public issues and changes that show it: `owner/repository#number`.
    pub seen_in: &'static [&'static str],
}

/// Another mode that leaves the same traces until one more thing is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LooksLike {
    /// The other mode's name.
    pub mode: &'static str,
    /// The observation that decides.
    pub decided_by: &'static str,
}

/// The mode of that name.
pub fn mode(name: &str) -> Option<&'static Mode> {
    MODES.iter().find(|mode| mode.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_likeness_is_a_mode() {
        let names: BTreeSet<_> = MODES.iter().map(|mode| mode.name).collect();
        assert_eq!(names.len(), MODES.len());
        for mode in MODES {
            for like in mode.looks_like {
                assert!(names.contains(like.mode), "{} looks like {}", mode.name, like.mode);
                assert_ne!(like.mode, mode.name);
            }
        }
    }

    #[test]
    fn nothing_is_left_empty_and_issues_can_be_followed() {
        for mode in MODES {
            let texts =
                [mode.title, mode.meaning, mode.why_it_matters, mode.evidence, mode.first_aid, mode.lasting_fix];
            assert!(texts.iter().all(|text| !text.is_empty() && text.trim() == *text), "{}", mode.name);
            assert!(!mode.title.contains('\n') && mode.title.len() < 70, "{}", mode.name);
            for issue in mode.seen_in {
                let (repository, number) = issue.split_once('#').expect("owner/repository#number");
                assert!(repository.split('/').count() == 2 && number.parse::<u32>().is_ok(), "{issue}");
            }
        }
    }

    /// The layers as they were measured; a mode that moves to another layer must be moved here too, knowingly.
    #[test]
    fn each_mode_blames_the_layer_that_was_measured() {
        use Layer::{Acked, Issued, Loaded, Sent};
        let blamed: &[(&str, &[&str], Option<Layer>)] = &[
            ("1", &["never-renews"], Some(Issued)),
            ("2", &["issues-never-pushes"], Some(Sent)),
            ("3", &["resend-cached"], Some(Issued)),
            ("4", &["expired-on-arrival"], Some(Issued)),
            ("5", &["nack-key-mismatch", "nack-bad-pem", "nack-chain-one-block", "nack-leaf-not-first"], Some(Acked)),
            ("6", &["nack-then-same-bytes"], Some(Acked)),
            ("7", &["wrong-name", "empty-response"], Some(Sent)),
            ("8", &["wrong-secret-kind"], Some(Sent)),
            ("8b", &["wrong-type-url"], Some(Sent)),
            ("9", &["stream-closed-once"], None),
            ("10", &["stream-refused"], Some(Sent)),
            ("11", &["socket-gone"], Some(Sent)),
            ("12", &["socket-replaced"], None),
            ("13", &["socket-unlinked-alive"], None),
            ("14", &["stale-bind-mount"], Some(Sent)),
            ("15", &["provider-frozen"], Some(Sent)),
            ("16", &["bundle-only"], Some(Issued)),
            ("17", &["leaf-before-bundle"], Some(Sent)),
            ("18", &["bundle-drops-old-ca"], Some(Sent)),
            ("19", &["wrong-identity", "several-identities"], Some(Issued)),
            ("20", &["not-yet-valid"], Some(Issued)),
            ("21", &["thin-margin"], Some(Sent)),
            ("22", &["masked-by-pool"], None),
            ("23", &["partial-subscribers"], Some(Acked)),
            ("24", &["late-listener-poisoned"], Some(Loaded)),
            ("25", &["duplicate-subscription"], None),
            ("26", &["never-arrives"], Some(Sent)),
            ("27", &["starved-by-bundle-churn"], Some(Issued)),
            ("28", &["agent-owns-socket"], Some(Issued)),
            ("29", &["files-socket-red-herring"], None),
            ("30", &["watched-file-missing"], Some(Sent)),
            ("31", &["masked-by-resumption"], None),
            ("32", &["resend-stale"], Some(Sent)),
            ("33", &["files-not-watched"], Some(Loaded)),
            ("34", &["files-rewritten-in-place"], Some(Loaded)),
            ("35", &["files-half-written"], Some(Acked)),
            ("36", &["files-key-before-chain"], Some(Acked)),
            ("37", &["intermediate-expires-first"], Some(Issued)),
            ("38", &["authority-expires-first"], Some(Issued)),
        ];
        let expected = blamed.iter().flat_map(|(n, names, layer)| names.iter().map(move |name| (*n, *name, *layer)));
        let table = MODES.iter().map(|mode| (mode.number, mode.name, mode.layer));
        assert_eq!(table.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}
