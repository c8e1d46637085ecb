//! Certificates by files, and listeners that come late: recordings of real Envoys, with one source less or one thing other.

use camino::Utf8Path;

use super::*;
use crate::timeline::ledger::Entry;

fn recorded(name: &str) -> Timeline {
    let path = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/timelines/{name}.ndjson"));
    Timeline::read(std::fs::read(path).unwrap().as_slice()).unwrap()
}

fn edited(mut t: Timeline, edit: impl Fn(&mut Fact)) -> Timeline {
    t.observations.iter_mut().for_each(|o| edit(&mut o.fact));
    t
}

fn candidates(v: &Verdict) -> Vec<&str> {
    v.candidates.iter().map(|c| c.mode.as_str()).collect()
}

#[test]
fn recordings_give_what_their_scenarios_expect_also_with_less_evidence() {
    for name in ["files-not-watched", "watched-file-missing", "late-listener-poisoned"] {
        let t = recorded(name);
        let (v, expect) = (judge(&t), t.header.expect.clone());
        assert_eq!(
            (v.judgement, v.layer, v.diagnosis),
            (Judgement::Fail, expect.layer, expect.diagnosis.clone()),
            "{name}"
        );
        for blindfold in Blindfold::ALL {
            let v = judge_without(&t, blindfold);
            assert_eq!(untrue(&expect, &v), None, "{name} without {}: {}", blindfold.name(), v.headline);
        }
    }
}

/// One source less, or several as they are missing together.
type Less = (&'static str, fn(&Observation) -> bool);
const LESS: &[Less] = &[
    ("issuer", |o| matches!(o.fact, Fact::Issued(_) | Fact::Authority(_))),
    ("provider", |o| matches!(o.source, Source::Provider | Source::Tap | Source::Witness)),
    ("stats", |o| matches!(o.fact, Fact::Stats(_))),
    ("config_dump", |o| matches!(o.fact, Fact::ConfigDump(_))),
    ("certs", |o| matches!(o.fact, Fact::Certs(_))),
    ("inbound", |o| o.source == Source::Inbound),
    ("outbound", |o| o.source == Source::Outbound),
    ("traffic", |o| o.source == Source::Traffic),
    ("census", |o| o.source == Source::Census),
    ("logs", |o| matches!(o.fact, Fact::Log(_))),
    ("listeners", |o| matches!(o.fact, Fact::Listeners(_))),
    ("provider and stats", |o| o.source == Source::Provider || matches!(o.fact, Fact::Stats(_))),
    ("provider and logs", |o| o.source == Source::Provider || matches!(o.fact, Fact::Log(_))),
    ("provider and census", |o| matches!(o.source, Source::Provider | Source::Census)),
    ("provider, census and stats", |o| {
        matches!(o.source, Source::Provider | Source::Census) || matches!(o.fact, Fact::Stats(_))
    }),
    ("provider, census, stats and logs", |o| {
        matches!(o.source, Source::Provider | Source::Census) || matches!(o.fact, Fact::Stats(_) | Fact::Log(_))
    }),
];

#[test]
fn with_any_source_less_nothing_untrue_is_said_and_nothing_passes() {
    for name in ["files-not-watched", "watched-file-missing", "late-listener-poisoned"] {
        let t = recorded(name);
        for (what, hides) in LESS {
            let v = judge(&without(&t, hides));
            assert_eq!(untrue(&t.header.expect, &v), None, "{name} without {what}: {}", v.headline);
            assert_ne!(v.judgement, Judgement::Pass, "{name} without {what}");
        }
    }
}

#[test]
fn whether_the_directory_is_watched_decides_and_is_not_guessed() {
    let t = recorded("files-not-watched");
    let unseen = judge(&without(&t, |o| matches!(o.fact, Fact::Watch(_))));
    assert_eq!((unseen.layer, candidates(&unseen)), (Some(Layer::Loaded), vec!["files-not-watched"]));
    assert_eq!(unseen.candidates[0].confidence, Confidence::Likely);
    let watched = judge(&edited(t, |fact| {
        if let Fact::Watch(w) = fact {
            w.watched = true;
        }
    }));
    assert_eq!((watched.layer, candidates(&watched)), (Some(Layer::Loaded), Vec::new()), "{}", watched.headline);
}

#[test]
fn files_that_were_written_over_are_told_from_those_that_were_moved() {
    let t = edited(recorded("files-not-watched"), |fact| match fact {
        Fact::Watch(w) => w.watched = true,
        Fact::Written(w) => w.how = "in_place".to_owned(),
        _ => {}
    });
    let v = judge(&t);
    assert_eq!((v.layer, v.diagnosis.as_deref()), (Some(Layer::Loaded), Some("files-rewritten-in-place")));
}

#[test]
fn envoys_own_words_tell_why_it_could_not_take_its_files() {
    let unwritten = without(&recorded("watched-file-missing"), |o| o.source == Source::Provider);
    for (why, mode, layer) in [
        ("Invalid path: /run/x/tls.crt", "watched-file-missing", Layer::Sent),
        ("Failed to load certificate chain from <inline>", "files-half-written", Layer::Acked),
        (
            "Failed to load private key from <inline>, Cause: KEY_VALUES_MISMATCH",
            "files-key-before-chain",
            Layer::Acked,
        ),
    ] {
        let v = judge(&edited(unwritten.clone(), |fact| {
            if let Fact::Log(log) = fact {
                log.line = format!("[warning][misc] Failed to reload certificates: {why}");
            }
        }));
        assert_eq!((v.layer, v.diagnosis.as_deref()), (Some(layer), Some(mode)), "{}", v.headline);
    }
    // Without them, what it counts leaves all three.
    let v = judge(&without(&unwritten, |o| matches!(o.fact, Fact::Log(_))));
    let all = ["watched-file-missing", "files-half-written", "files-key-before-chain"];
    assert_eq!((v.layer, v.diagnosis.as_deref(), candidates(&v)), (None, None, all.to_vec()));
    assert!(v.candidates[0].would_decide.as_deref().unwrap().contains("Failed to reload certificates"));
}

#[test]
fn nobody_acknowledges_files_and_the_ledger_says_so() {
    let t = recorded("files-not-watched");
    let ledger = Ledger::of(&t);
    let row = ledger.proxies[0].rows.iter().rfind(|row| row.sends > 0).unwrap();
    assert!(matches!(&row.acked, Entry::Unseen { why } if why.contains("acknowledges files")), "{:?}", row.acked);
    assert_eq!(row.loaded, Entry::NotReached);
}

#[test]
fn a_listener_that_is_refused_for_another_reason_has_no_name() {
    let t = edited(recorded("late-listener-poisoned"), |fact| {
        if let Fact::Nacked(n) = fact {
            let (stream, nonce, version_info) = (n.stream, n.nonce.clone(), n.version_info.clone());
            *fact = Acked { stream, nonce, version_info }.into();
        }
    });
    let v = judge(&t);
    assert_eq!((v.judgement, v.diagnosis.as_deref()), (Judgement::Fail, None), "{}", v.headline);
    assert!(!candidates(&v).contains(&"late-listener-poisoned"), "{:?}", v.candidates);
}

#[test]
fn a_listener_that_listens_leaves_the_refusal_before_it() {
    let t = edited(recorded("late-listener-poisoned"), |fact| match fact {
        Fact::ListenerAnswered(l) => l.error = None,
        Fact::Listeners(all) => all.listeners.push(("late".to_owned(), "127.0.0.1:1".to_owned())),
        _ => {}
    });
    let v = judge(&t);
    assert_eq!((v.layer, v.diagnosis.as_deref()), (Some(Layer::Acked), Some("nack-key-mismatch")), "{}", v.headline);
}

/// A healthy night whose certificates come by files; at the tenth renewal a proxy read a key that was not the chain's.
fn misread() -> Timeline {
    let mut t = without(&night(Twist::Healthy, 1, 20), |o| {
        matches!(o.fact, Fact::StreamOpened(_) | Fact::Subscribed(_) | Fact::Acked(_))
    });
    for o in &mut t.observations {
        if let Fact::Sent(sent) = &o.fact {
            let secret = sent.secrets[0].clone();
            o.fact = Written { directory: "/run/certs".into(), how: "moved".into(), secret }.into();
        }
    }
    let certificate = |o: &Observation| matches!(&o.fact, Fact::Written(w) if w.secret.name == "default");
    let tenth = t.observations.iter().enumerate().filter(|(_, o)| certificate(o)).nth(20).unwrap().0;
    let mut unfit = t.observations[tenth].clone();
    if let Fact::Written(Written {
        secret: SentSecret { payload: Payload::Certificate { key_matches, .. }, .. }, ..
    }) = &mut unfit.fact
    {
        *key_matches = Some(false);
    }
    let line = "[warning][misc] Failed to reload certificates: KEY_VALUES_MISMATCH".to_owned();
    let said = Observation { source: Source::Process, fact: Log { line }.into(), ..unfit.clone() };
    t.observations.splice(tenth..tenth, [unfit, said]);
    without(&t, |_| false)
}

#[test]
fn files_that_were_misread_once_and_taken_in_time_are_told_and_no_failure() {
    let t = misread();
    let v = judge(&t);
    assert_eq!(v.judgement, Judgement::Pass, "{}", v.headline);
    let told = v.findings.iter().find(|f| f.check == "accepted").unwrap();
    assert_eq!(told.result, CheckResult::Noted);
    assert!(told.message.contains("KEY_VALUES_MISMATCH; later ones came in time"), "{}", told.message);
    let accepted = |v: &Verdict| v.findings.iter().find(|f| f.check == "accepted").map(|f| f.result);

    let mut last = t.clone();
    let unfit = last.observations.iter().position(|o| matches!(o.fact, Fact::Log(_))).unwrap() - 1;
    let unfit = last.observations[unfit].clone();
    last.observations.push(unfit);
    let v = judge(&without(&last, |_| false));
    assert_eq!(accepted(&v), Some(CheckResult::Violated), "the last files are no good");
    let mut late = t.clone();
    late.header.criteria.margin_floor_s = 3000;
    assert_eq!(accepted(&judge(&late)), Some(CheckResult::Violated), "below the floor");
    let unserved = without(&t, |o| matches!(o.fact, Fact::Handshake(_)));
    assert_eq!(accepted(&judge(&unserved)), Some(CheckResult::Violated), "nobody saw it served");
    let unwritten = without(&t, |o| matches!(o.fact, Fact::Written(_)));
    assert_eq!(accepted(&judge(&unwritten)), Some(CheckResult::Violated), "nobody saw what was written");
}
