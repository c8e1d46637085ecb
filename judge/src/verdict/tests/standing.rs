//! Where proxies stand, by their admin APIs alone.

use super::*;

/// The last look alone.
fn one_look(t: &Timeline) -> Timeline {
    let last = t.observations.iter().rfind(|o| matches!(o.fact, Fact::Jump(_))).unwrap().seq;
    attached(&without(t, |o| o.seq < last))
}

fn states(t: &Timeline) -> Vec<State> {
    let standings = standings(t);
    assert!(!standings.is_empty());
    standings.iter().map(|s| s.state).collect()
}

#[test]
fn a_mesh_that_renews_is_fresh_and_nothing_is_said_of_it() {
    let healthy = night(Twist::Healthy, 1, 12);
    for t in [attached(&healthy), one_look(&healthy)] {
        for s in standings(&t) {
            assert_eq!((s.state, s.overdue_s), (State::Fresh, None), "{s:?}");
            assert!(s.remarks.is_empty() && s.suspected.is_empty(), "{s:?}");
            assert!(s.identity.is_some() && s.left_s.is_some_and(|left| left > 0), "{s:?}");
        }
    }
}

#[test]
fn an_expired_certificate_is_told_from_one_look() {
    for s in standings(&one_look(&night(Twist::NoRenewal, 1, 12))) {
        assert_eq!(s.state, State::Expired);
        assert!(s.left_s.unwrap() < -3600, "{s:?}");
        assert!(s.remarks[0].contains("TLS contexts hold serial") && s.remarks[0].contains("expired since"), "{s:?}");
    }
}

#[test]
fn a_renewal_that_is_left_out_is_told_before_anything_expires() {
    let mut sketch = Sketch::new(3600, 1200);
    sketch.step(1200, Twist::NoRenewal).step(1200, Twist::NoRenewal);
    let t = one_look(&sketch.finish());
    for s in standings(&t) {
        assert_eq!(s.state, State::Overdue, "{s:?}");
        assert!(s.overdue_s.unwrap() >= 600 && s.left_s.unwrap() > 0, "{s:?}");
        assert!(s.remarks.iter().any(|r| r.contains("half of its lifetime")), "{s:?}");
    }
    let mut named = t;
    named.header.criteria.renew_every_s = Some(1200);
    assert!(standings(&named).iter().all(|s| s.overdue_s.unwrap() >= 1200));
    named.header.criteria.renew_every_s = Some(3000);
    assert_eq!(standings(&named)[0].state, State::Fresh);
}

#[test]
fn versions_that_move_over_one_certificate_are_told_before_it_expires() {
    let mut sketch = Sketch::new(36_000, 600);
    for _ in 0..4 {
        sketch.step(600, Twist::ResendCached);
    }
    let t = attached(&sketch.finish());
    for s in standings(&t) {
        assert!(s.suspected.contains(&"resend-cached"), "{s:?}");
        let told = |r: &String| r.contains("the version of default moved") && r.contains("stayed serial");
        assert!(s.remarks.iter().any(told), "{s:?}");
    }
}

#[test]
fn on_newer_envoys_the_counters_tell_it() {
    let mut sketch = Sketch::new(36_000, 600).new_envoy();
    for _ in 0..4 {
        sketch.step(600, Twist::ResendCached);
    }
    for s in standings(&attached(&sketch.finish())) {
        assert!(s.remarks.iter().any(|r| r.contains("update_success")), "{s:?}");
    }
}

#[test]
fn up_to_envoy_1_36_one_look_shows_that_the_same_certificate_came_again() {
    let mut t = one_look(&night(Twist::ResendCached, 1, 12));
    let (at, proxy) = t.observations.first().map(|o| (o.at, o.proxy.clone())).unwrap();
    let told = |t: &Timeline| standings(t)[0].remarks.iter().any(|r| r.contains("it was sent again, and not renewed"));
    assert!(!told(&t), "without the process's start nobody knows what came first");
    let info = |uptime_s| Fact::ServerInfo(ServerInfo { version: "x".into(), state: "LIVE".into(), uptime_s });
    let seq = t.observations.last().unwrap().seq + 1;
    t.observations.push(Observation { seq, at, source: Source::Admin, proxy, secret: None, fact: info(12 * 1200) });
    assert!(told(&t), "{:?}", standings(&t));
    t.observations.last_mut().unwrap().fact = info(5);
    assert!(!told(&t), "a proxy that just started was sent what its provider had");
}

#[test]
fn contexts_that_were_left_behind_are_mixed() {
    assert!(states(&attached(&night(Twist::HalfLoaded, 5, 6))).contains(&State::Mixed));
}

#[test]
fn what_could_not_be_read_is_unseen_with_its_reason() {
    let mut t = attached(&night(Twist::Healthy, 1, 3));
    for o in &mut t.observations {
        o.fact = Blind { layer: None, what: "the admin API".into(), why: "forbidden".into() }.into();
    }
    for s in standings(&t) {
        assert_eq!((s.state, s.unseen.as_slice()), (State::Unseen, &["the admin API: forbidden".to_owned()][..]));
    }
}

#[test]
fn a_look_at_an_incident_is_judged_and_names_what_it_can() {
    let v = judge(&attached(&night(Twist::ResendCached, 1, 12)));
    assert_eq!(v.judgement, Judgement::Fail, "{:#?}", v.findings);
    assert!(v.candidates.iter().any(|c| c.mode == "resend-cached"), "{:?}", v.candidates);
    assert!(!v.candidates.iter().any(|c| c.mode == "never-renews"), "versions moved: {:?}", v.candidates);
}

/// With the uptime that the first proxy tells of itself in its last look.
fn up_for(mut t: Timeline, uptime_s: i64) -> Timeline {
    let (at, proxy) = t.observations.first().map(|o| (o.at, o.proxy.clone())).unwrap();
    let fact = ServerInfo { version: "x".into(), state: "LIVE".into(), uptime_s }.into();
    let seq = t.observations.last().unwrap().seq + 1;
    t.observations.push(Observation { seq, at, source: Source::Admin, proxy, secret: None, fact });
    if let Some(footer) = &mut t.footer {
        footer.observations = seq + 1;
    }
    t
}

/// The last look at a proxy of our days, after these steps of 20 minutes each, and what is suspected of it.
fn last_look(steps: &[Twist], uptime_s: Option<i64>) -> (Vec<String>, String) {
    let mut sketch = Sketch::fleet(1, 4, 3600, 1200).new_envoy();
    for twist in steps {
        sketch.step(1200, *twist);
    }
    let mut t = one_look(&sketch.finish());
    for o in &mut t.observations {
        if let Fact::Stats(stats) = &mut o.fact {
            stats.values.insert("sds.default.control_plane.connected_state".into(), 1);
        }
    }
    if let Some(uptime_s) = uptime_s {
        t = up_for(t, uptime_s);
    }
    let standing = standings(&t).remove(0);
    assert_eq!(standing.state, State::Expired, "{standing:?}");
    (judge(&t).candidates.into_iter().map(|c| c.mode).collect(), standing.remarks.join("\n"))
}

const STARTED: &str = "and holds the certificate that it started with";

#[test]
fn a_counter_that_was_read_once_rules_out_nothing_that_came_before() {
    // The updates that it counts may have been renewals, or the same certificate again.
    let stopped =
        [Twist::Healthy, Twist::Healthy, Twist::NoRenewal, Twist::NoRenewal, Twist::NoRenewal, Twist::NoRenewal];
    let (modes, remarks) = last_look(&stopped, Some(6 * 1200));
    assert!(modes.contains(&"resend-cached".to_owned()) && modes[0] == "never-renews", "{modes:?}");
    assert!(!remarks.contains(STARTED), "{remarks}");

    // As many as renewals were due, and its first certificate.
    let (modes, remarks) = last_look(&[Twist::ResendCached; 6], Some(6 * 1200));
    assert!(modes[0] == "resend-cached" && modes.contains(&"never-renews".to_owned()), "{modes:?}");
    assert!(remarks.contains("Envoy took 7 updates of default") && remarks.contains(STARTED), "{remarks}");
    // What has just started is told much, and holds its first certificate as it should.
    let healthy = up_for(one_look(&night(Twist::ResendCached, 1, 12)), 30);
    assert!(standings(&healthy).iter().all(|s| !s.remarks.join(" ").contains(STARTED)));
    // When it started is not known.
    let (modes, remarks) = last_look(&[Twist::ResendCached; 6], None);
    assert!(modes.contains(&"resend-cached".to_owned()) && !remarks.contains(STARTED), "{modes:?} {remarks}");

    // Only what came first, hours ago; or just now, and who knows what its provider has.
    let (modes, _) = last_look(&[Twist::NoRenewal; 6], Some(6 * 1200));
    assert!(!modes.contains(&"resend-cached".to_owned()) && modes.contains(&"never-renews".to_owned()), "{modes:?}");
    let (modes, _) = last_look(&[Twist::NoRenewal; 6], Some(30));
    assert!(modes.contains(&"resend-cached".to_owned()) && modes.contains(&"never-renews".to_owned()), "{modes:?}");
}

/// Counters of SDS are hidden, as Istio hides them, and the last look was heard by the proxy's own log: what it said, line
/// by line, in 90 s.
fn heard(t: &Timeline, said: &[SdsMessage]) -> Timeline {
    heard_for(t, said, 90)
}

fn heard_for(t: &Timeline, said: &[SdsMessage], listened_s: u32) -> Timeline {
    let mut t = attached(&without(t, |o| matches!(o.fact, Fact::Stats(_))));
    let last = t.observations.iter().rfind(|o| matches!(o.fact, Fact::Certs(_))).unwrap();
    let (mut at, proxy, certs) = (last.at, last.proxy.clone(), last.fact.clone());
    let mut add = |after: u32, source: Source, fact: Fact| {
        at.mono += std::time::Duration::from_secs(after.into());
        at.wall += jiff::SignedDuration::from_secs(after.into());
        let seq = t.observations.len() as u64;
        t.observations.push(Observation { seq, at, source, proxy: proxy.clone(), secret: None, fact });
    };
    let log = |line: String| Fact::from(Log { line });
    add(1, Source::Admin, log(format!("{CONFIG_AT_DEBUG} (it was at warning)")));
    said.iter().for_each(|message| add(1, Source::Process, log(message.to_string())));
    add(1, Source::Admin, certs);
    add(listened_s, Source::Admin, log(format!("{CONFIG_PUT_BACK}: at warning")));
    if let Some(footer) = &mut t.footer {
        footer.observations = t.observations.len() as u64;
    }
    t
}

fn closed(status: u8) -> SdsMessage {
    SdsMessage::Closed { status, unconnected: false, failing_s: None }
}

fn unconnected(failing_s: u64) -> SdsMessage {
    SdsMessage::Closed { status: 14, unconnected: true, failing_s: Some(failing_s) }
}

/// Of the proxy that was heard.
fn of_heard(t: &Timeline) -> (Standing, Vec<String>) {
    let proxy = t.observations.last().unwrap().proxy.clone().unwrap();
    let modes = judge(t).candidates.into_iter().map(|c| c.mode).collect();
    (standings(t).into_iter().find(|s| s.proxy == proxy).unwrap(), modes)
}

fn came(version: &str, anew: bool) -> Vec<SdsMessage> {
    let version = || version.to_owned();
    let mut said = vec![SdsMessage::Received { version: version() }];
    said.extend(anew.then_some(SdsMessage::Updated));
    said.push(SdsMessage::Accepted { version: version() });
    said
}

fn expired() -> Timeline {
    expired_by(Twist::ResendCached)
}

fn expired_by(twist: Twist) -> Timeline {
    let mut sketch = Sketch::fleet(1, 4, 3600, 1200).new_envoy();
    for _ in 0..6 {
        sketch.step(1200, twist);
    }
    sketch.finish()
}

#[test]
fn its_own_log_tells_updates_in_vain_from_silence() {
    let again = [came("7", false), came("8", false)].concat();
    let (s, modes) = of_heard(&heard(&expired(), &again));
    assert_eq!(s.state, State::Expired);
    let remark = "Envoy's own log tells of 2 SDS updates in";
    assert!(
        s.remarks.iter().any(|r| r.starts_with(remark) && r.ends_with("version 8): none brought anything new")),
        "{s:?}"
    );
    assert!(
        modes.contains(&"resend-cached".to_owned()) && !modes.contains(&"issues-never-pushes".to_owned()),
        "{modes:?}"
    );

    // Whoever listens for less than renewals are apart hears nothing of them.
    let (s, modes) = of_heard(&heard(&expired(), &[]));
    assert!(s.remarks.iter().any(|r| r.contains("Envoy's own log tells of no SDS update in 91 s")), "{s:?}");
    for mode in ["never-renews", "resend-cached"] {
        assert!(modes.contains(&mode.to_owned()), "{modes:?}");
    }
    let (_, modes) = of_heard(&heard_for(&expired(), &[], 1800));
    assert!(modes.contains(&"never-renews".to_owned()), "{modes:?}");
    for gone in ["resend-cached", "stream-refused"] {
        assert!(!modes.contains(&gone.to_owned()), "a stream on which nothing comes: {modes:?}");
    }

    // Without it, both are possible.
    let unheard = attached(&without(&expired(), |o| matches!(o.fact, Fact::Stats(_))));
    let modes: Vec<_> = judge(&unheard).candidates.into_iter().map(|c| c.mode).collect();
    for mode in ["resend-cached", "never-renews", "stream-refused"] {
        assert!(modes.contains(&mode.to_owned()), "{modes:?}");
    }
}

#[test]
fn a_bundle_that_comes_anew_renews_no_certificate() {
    let (s, _) = of_heard(&heard(&expired(), &came("7", true)));
    assert!(s.remarks.iter().any(|r| r.ends_with("it brought something new, and its certificate stayed")), "{s:?}");
    assert!(s.suspected.contains(&"bundle-only") && !s.suspected.contains(&"resend-cached"), "{s:?}");
}

#[test]
fn its_own_log_tells_a_refusal_and_a_stream_that_is_lost() {
    let refused = [
        SdsMessage::Received { version: "7".into() },
        SdsMessage::Updated,
        SdsMessage::Refused { reason: "Failed to load private key" },
    ];
    let (s, modes) = of_heard(&heard(&expired(), &refused));
    let told = "Envoy's own log tells of 1 refused SDS updates (the last at";
    assert!(s.remarks.iter().any(|r| r.starts_with(told) && r.ends_with("Failed to load private key")), "{s:?}");
    assert!(s.suspected.contains(&"nack-key-mismatch"), "{s:?}");
    assert!(
        modes.contains(&"nack-key-mismatch".to_owned()) && !modes.contains(&"never-renews".to_owned()),
        "{modes:?}"
    );

    let lost = [came("7", false), vec![closed(14)]].concat();
    let (s, _) = of_heard(&heard(&expired(), &lost));
    assert!(s.remarks.iter().any(|r| r.contains("gRPC status 14), and of no SDS update since")), "{s:?}");
    let up_again = [vec![closed(14)], came("7", false)].concat();
    let (s, _) = of_heard(&heard(&expired(), &up_again));
    assert!(!s.suspected.contains(&"stream-refused"), "{s:?}");
}

#[test]
fn bytes_that_were_refused_and_are_taken_for_known_when_they_come_again_are_told_from_a_cache() {
    let again = [came("7", false), came("8", false)].concat();
    let (s, modes) = of_heard(&heard(&expired_by(Twist::Nack), &again));
    assert_eq!(modes, ["nack-then-same-bytes", "partial-subscribers"]);
    assert!(s.suspected.contains(&"nack-then-same-bytes"), "{s:?}");
    let (_, modes) = of_heard(&heard(&expired_by(Twist::Nack), &[]));
    assert!(modes.first().is_some_and(|mode| mode == "nack-key-mismatch"), "{modes:?}");
}

#[test]
fn what_comes_again_beside_a_new_bundle_may_be_the_certificate() {
    let both = [came("7", true), came("8", false)].concat();
    let (s, _) = of_heard(&heard(&expired(), &both));
    assert!(s.suspected.contains(&"bundle-only") && s.suspected.contains(&"resend-cached"), "{s:?}");
}

#[test]
fn a_stream_that_does_not_come_up_is_no_silence() {
    let socket = ["socket-gone", "stale-bind-mount"];
    let (s, modes) = of_heard(&heard(&expired(), &[unconnected(80), unconnected(112)]));
    assert!(
        s.remarks
            .iter()
            .any(|r| r.contains("no stream to the provider for 112 s") && r.contains("can't be connected to"))
    );
    assert_eq!((s.suspected, modes), (socket.to_vec(), socket.map(str::to_owned).to_vec()));

    // Where nobody raised the level, Envoy says so all the same.
    let at_default = |said: &[SdsMessage], looked_after: i64| {
        let raised = |o: &Observation| matches!(&o.fact, Fact::Log(l) if l.line.starts_with(CONFIG_AT_DEBUG));
        let mut t = without(&heard(&expired(), said), raised);
        let looked = t.observations.iter_mut().rfind(|o| matches!(o.fact, Fact::Certs(_))).unwrap();
        looked.at.wall += jiff::SignedDuration::from_secs(looked_after);
        let proxy = looked.proxy.clone().unwrap();
        let modes: Vec<_> = judge(&t).candidates.into_iter().map(|c| c.mode).collect();
        (standings(&t).into_iter().find(|s| s.proxy == proxy).unwrap(), modes)
    };
    let (s, modes) = at_default(&[unconnected(80)], 0);
    assert_eq!((s.suspected, modes), (socket.to_vec(), socket.map(str::to_owned).to_vec()));
    let (s, modes) = at_default(&[closed(7), closed(7)], 0);
    assert_eq!((s.suspected, modes), (vec!["stream-refused"], vec!["stream-refused".to_owned()]));
    let refused = SdsMessage::Refused { reason: "Failed to load private key" };
    let (s, _) = at_default(std::slice::from_ref(&refused), 0);
    assert_eq!(s.suspected, ["nack-key-mismatch"], "{s:?}");
    // Once, or a while ago: it may be up again.
    for (said, after) in [(&[closed(7)][..], 0), (&[unconnected(80)], 60)] {
        let (s, modes) = at_default(said, after);
        assert!(
            s.suspected.is_empty() && modes.contains(&"never-renews".to_owned()),
            "{said:?} {after}: {s:?} {modes:?}"
        );
    }
}

#[test]
fn of_a_proxy_that_is_renewed_its_own_log_is_told_and_nothing_is_suspected() {
    let said = [came("7", true), came("7", false)].concat();
    let healthy = || night(Twist::Healthy, 1, 12);
    let (s, _) = of_heard(&heard(&healthy(), &said));
    assert!(s.remarks.is_empty() && s.suspected.is_empty(), "{s:?}");
    assert!(
        s.comes.iter().any(|c| c.contains("2 SDS updates in") && c.ends_with("1 of them brought something new")),
        "{s:?}"
    );
}

#[test]
fn who_no_longer_listened_proves_no_silence() {
    let mut deaf = heard(&expired(), &[]);
    let raised =
        deaf.observations.iter().rfind(|o| matches!(&o.fact, Fact::Log(l) if l.line.starts_with(CONFIG_AT_DEBUG)));
    let at = raised.unwrap().at;
    let silence = |t: &Timeline| of_heard(t).0.remarks.iter().any(|r| r.contains("no SDS update"));
    assert!(silence(&deaf));
    let last = deaf.observations.last_mut().unwrap();
    last.fact = Blind { layer: None, what: CONFIG_UNHEARD.into(), why: "the node ended it".into() }.into();
    last.at = at;
    assert!(!silence(&deaf));
}

/// The proxy's connections to the provider's socket, each time somebody looked, a second apart.
fn counted(t: &Timeline, looks: &[&[u64]], own: bool) -> Standing {
    let t = connected(t, looks, own);
    let proxy = t.observations.last().unwrap().proxy.clone();
    standings(&t).into_iter().find(|s| Some(&s.proxy) == proxy.as_ref()).unwrap()
}

fn connected(t: &Timeline, looks: &[&[u64]], own: bool) -> Timeline {
    let mut t = attached(t);
    let last = t.observations.iter().rfind(|o| matches!(o.fact, Fact::Certs(_))).unwrap();
    let (mut at, proxy) = (last.at, last.proxy.clone());
    for sockets in looks {
        at.wall += jiff::SignedDuration::from_secs(1);
        let pids = if own { vec![7; sockets.len()] } else { Vec::new() };
        let peers = Peers { socket: "/s".into(), pids, sockets: sockets.to_vec() };
        let seq = t.observations.len() as u64;
        let (source, fact) = (Source::Census, peers.into());
        t.observations.push(Observation { seq, at, source, proxy: proxy.clone(), secret: None, fact });
    }
    if let Some(footer) = &mut t.footer {
        footer.observations = t.observations.len() as u64;
    }
    t
}

#[test]
fn a_proxy_that_has_a_connection_has_a_socket_to_connect_to() {
    let hidden = without(&expired(), |o| matches!(o.fact, Fact::Stats(_)));
    let gone = |t: &Timeline| {
        let modes: Vec<_> = judge(t).candidates.into_iter().map(|c| c.mode).collect();
        ["socket-gone", "stale-bind-mount", "stream-refused"].map(|mode| modes.contains(&mode.to_owned()))
    };
    assert_eq!(gone(&connected(&hidden, &[&[41], &[41]], true)), [false, false, true]);
    // Somebody else's tells nothing of it; nor does one that it had before.
    assert_eq!(gone(&connected(&hidden, &[&[41], &[41]], false)), [true, true, true]);
    assert_eq!(gone(&connected(&hidden, &[&[41], &[]], true)), [true, true, true]);
}

#[test]
fn a_connection_that_stays_is_told_from_one_that_is_dialled_anew() {
    let healthy = night(Twist::Healthy, 1, 12);
    let said = |looks: &[&[u64]], own| counted(&healthy, looks, own).comes.pop().unwrap();
    let stays = said(&[&[41], &[41], &[41]], true);
    assert_eq!(stays, "Envoy has 1 connection to the provider's socket (the same at each of 3 looks in 2 s)");
    let anew = said(&[&[41], &[42]], true);
    assert!(anew.contains("not the same at each of 2 looks in 1 s: 2 different ones"), "{anew}");
    assert!(said(&[&[41]], false).starts_with("something in its pod has 1 connection"));

    let none = counted(&healthy, &[&[41], &[]], true);
    assert!(none.remarks[0].ends_with("and had at 1 of 2 looks in 1 s"), "{none:?}");
    assert!(none.suspected.contains(&"stream-refused"), "{none:?}");
}
