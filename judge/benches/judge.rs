//! Reads a recording and judges it, and prints how long each took and how much processor time: `cargo bench -p rotacheck-judge --bench judge -- FILE`. With `--stretch N` it
//! writes one instead, of N observations or some more. `ci/bench judge` does both for several lengths.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::time::{Duration, Instant};

use rotacheck_judge::timeline::{CertFacts, Fact, Fingerprint, Observation, Payload, Serial, Timeline};
use rotacheck_judge::verdict::judge;

/// Recorded with real Envoys; its last renewals are all alike.
const RECORDED: &[u8] = include_bytes!("../../fixtures/timelines/rotation-one-hour.ndjson");
/// Between two of them.
const EVERY_S: i64 = 1200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match &arguments[..] {
        // All targets were asked for: there is nothing to measure.
        [] => {}
        [path] => measure(path),
        [stretch, wanted, path] if stretch == "--stretch" => {
            let timeline = stretched(wanted.parse().expect("the number of observations"));
            let file = File::create(path).unwrap_or_else(|e| panic!("cannot create {path}: {e}"));
            timeline.write(BufWriter::new(file)).unwrap_or_else(|e| panic!("cannot write {path}: {e}"));
        }
        _ => panic!("give it FILE, or --stretch N FILE"),
    }
}

fn measure(path: &str) {
    let file = File::open(path).unwrap_or_else(|e| panic!("cannot open {path}: {e}"));
    let (began, worked) = (Instant::now(), processor_time());
    let timeline = Timeline::read(BufReader::new(file)).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
    let (read, read_work, held) = (began.elapsed(), processor_time() - worked, peak_kib());
    let (began, worked) = (Instant::now(), processor_time());
    let verdict = judge(&timeline);
    let (judged, judge_work) = (began.elapsed(), processor_time() - worked);
    println!(
        "{} observations, {:?}: read in {} ms ({} ms of work), judged in {} ms ({} ms of work); {held} KiB held, {} KiB at \
         the peak",
        timeline.observations.len(),
        verdict.judgement,
        read.as_millis(),
        read_work.as_millis(),
        judged.as_millis(),
        judge_work.as_millis(),
        peak_kib()
    );
}

/// What this process has computed for, all its threads together: on a busy machine it tells more than the time that passed.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(now).expect("the processor's time is positive")
}

/// The most memory that this process had, KiB.
fn peak_kib() -> u64 {
    let status = procfs::process::Process::myself().and_then(|p| p.status());
    status.ok().and_then(|s| s.vmhwm).expect("Linux tells a process of its own memory")
}

/// The recording with its last renewal but one over and over, each time with new certificates and later.
fn stretched(wanted: usize) -> Timeline {
    let mut timeline = Timeline::read(RECORDED).expect("the recording is one of ours");
    let all = std::mem::take(&mut timeline.observations);
    let renewals = all.iter().enumerate().filter(|(_, o)| matches!(&o.fact, Fact::Step(s) if s.renewal.is_some()));
    // With the jump before it.
    let [first, last] = renewals.map(|(i, _)| i - 1).collect::<Vec<_>>()[..].last_chunk().copied().expect("renewals");
    let end = all.iter().position(|o| matches!(&o.fact, Fact::Phase(p) if p.name == "collect")).expect("its end");
    let passed = all[last].at.mono - all[first].at.mono;
    let (before, once, after) = (&all[..first], &all[first..last], &all[end..]);
    let times = wanted.saturating_sub(before.len() + after.len()).div_ceil(once.len()).max(1);
    let times = u32::try_from(times).expect("so many renewals");
    let renewed = (0..times).flat_map(|k| once.iter().map(move |o| later(o, k, passed)));
    let ended = after.iter().map(|o| later(o, times.saturating_sub(2), passed));
    timeline.observations = before.iter().cloned().chain(renewed).chain(ended).collect();
    for (seq, o) in (0..).zip(&mut timeline.observations) {
        o.seq = seq;
    }
    if let Some(footer) = &mut timeline.footer {
        footer.observations = timeline.observations.len() as u64;
    }
    timeline
}

/// As it would have been seen `k` renewals later.
fn later(o: &Observation, k: u32, passed: Duration) -> Observation {
    let mut o = o.clone();
    let seconds = i64::from(k) * EVERY_S;
    o.at.mono += passed * k;
    o.at.wall += jiff::SignedDuration::from_secs(seconds);
    o.at.offset_s += seconds;
    let leaf = |c: &mut CertFacts| {
        c.fingerprint = Fingerprint::of_der(format!("{} {k}", c.fingerprint).as_bytes());
        c.serial = another(&c.serial, k);
        c.not_before += jiff::SignedDuration::from_secs(seconds);
        c.not_after += jiff::SignedDuration::from_secs(seconds);
    };
    match &mut o.fact {
        Fact::Jump(jump) => (jump.from_s, jump.to_s) = (jump.from_s + seconds, jump.to_s + seconds),
        Fact::Step(step) => (step.index, step.renewal) = (step.index + k, step.renewal.map(|n| n + k)),
        Fact::Issued(issued) => leaf(&mut issued.cert),
        Fact::Sent(sent) => {
            sent.nonce = format!("{} {k}", sent.nonce);
            for secret in &mut sent.secrets {
                if let Payload::Certificate { chain, digest, .. } = &mut secret.payload {
                    chain.iter_mut().take(1).for_each(leaf);
                    *digest = Fingerprint::of_der(format!("{digest} {k}").as_bytes());
                }
            }
        }
        Fact::Acked(acked) => acked.nonce = format!("{} {k}", acked.nonce),
        Fact::Handshake(shown) => shown.chain.iter_mut().take(1).for_each(leaf),
        Fact::ConfigDump(dump) => {
            dump.secrets.iter_mut().flat_map(|s| s.chain.first_mut()).for_each(leaf);
        }
        Fact::Certs(certs) => {
            for loaded in &mut certs.leaves {
                loaded.serial = another(&loaded.serial, k);
                loaded.not_before += jiff::SignedDuration::from_secs(seconds);
                loaded.not_after += jiff::SignedDuration::from_secs(seconds);
            }
        }
        _ => {}
    }
    o
}

/// The serial of the certificate that takes this one's place `k` renewals later.
fn another(serial: &Serial, k: u32) -> Serial {
    let digits = Fingerprint::of_der(format!("{serial} {k}").as_bytes()).to_string();
    Serial::parse(&digits[..32]).expect("hexadecimal digits")
}
