//! The ledger of one proxy, drawn: a lane for each layer over cell time, a colour for each generation.
//!
//! Lanes of events (issued, sent, acked) have marks; lanes that are sampled (dumped, loaded, served) have bars, each
//! from the first sample that shows a generation to the first that shows another. A certificate that is sent again
//! and again is the same colour again and again.

use std::collections::{BTreeSet, HashMap};

use super::prose::{clock, counted, moment};
use super::shape::{Form, Marks, Shape, round};
use super::table::TableRow;
use crate::report::text::{plain, span};
use crate::timeline::ledger::{Answer, Bundle, Entry, Ledger, Mark, ProxyLedger};
use crate::timeline::{CertFacts, Fingerprint, TlsRole};

const LEFT: f64 = 128.0;
/// Room that a character of an expiry's label takes, and what stays free between two labels.
const LABEL_CHAR: f64 = 7.2;
const LABEL_GAP: f64 = 8.0;
const PLOT: f64 = 742.0;
const TOP: f64 = 30.0;
const LANE: f64 = 34.0;
const BAR: f64 = 18.0;
/// Colours in the style sheet: neighbours differ, far ones may share.
const COLOURS: usize = 8;
const MOST_TABLE_ROWS: usize = 200;

pub(super) struct ProxyLanes {
    pub(super) id: String,
    pub(super) spiffe_id: String,
    pub(super) height: f64,
    pub(super) lanes: Vec<Lane>,
    pub(super) lines: Vec<ExpiryLine>,
    pub(super) washes: Vec<Wash>,
    pub(super) ticks: Vec<Tick>,
    pub(super) day: String,
    /// The drawing in words.
    pub(super) described: String,
    pub(super) table: Vec<TableRow>,
    /// Rows of the table that are left out.
    pub(super) more: usize,
}

#[derive(Default)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) y: f64,
    pub(super) middle: f64,
    pub(super) bars: Vec<Bar>,
    pub(super) marks: Vec<Shape>,
    /// A path with a stroke for each sample.
    pub(super) samples: String,
    pub(super) note: Vec<String>,
    pub(super) bad: bool,
}

pub(super) struct Bar {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) w: f64,
    pub(super) h: f64,
    pub(super) class: String,
    pub(super) label: String,
    pub(super) title: String,
}

pub(super) struct ExpiryLine {
    pub(super) x: f64,
    pub(super) label: String,
    pub(super) bad: bool,
    pub(super) anchor: &'static str,
    pub(super) label_x: f64,
}

pub(super) struct Wash {
    pub(super) x: f64,
    pub(super) w: f64,
}

pub(super) struct Tick {
    pub(super) x: f64,
    pub(super) label: String,
}

/// The drawings of all proxies.
pub(super) fn draw(ledger: &Ledger) -> Vec<ProxyLanes> {
    ledger.proxies.iter().map(|p| Drawing::new(ledger, p).draw()).collect()
}

struct Drawing<'a> {
    ledger: &'a Ledger<'a>,
    proxy: &'a ProxyLedger<'a>,
    numbers: HashMap<&'a Fingerprint, usize>,
    from: f64,
    to: f64,
    ids: Vec<jiff::Timestamp>,
}

fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

impl<'a> Drawing<'a> {
    fn new(ledger: &'a Ledger<'a>, proxy: &'a ProxyLedger<'a>) -> Self {
        let numbers = proxy.rows.iter().enumerate().map(|(i, row)| (&row.generation, i)).collect();
        let mut ids: Vec<jiff::Timestamp> = vec![ledger.header.started, ledger.end_wall()];
        ids.extend(proxy.pushes.iter().map(|p| p.mark.at.wall));
        ids.extend(proxy.served.iter().map(|s| s.mark.at.wall));
        ids.extend(proxy.loads.iter().map(|l| l.mark.at.wall));
        let from = ids.iter().copied().map(seconds).fold(f64::INFINITY, f64::min);
        let to = ids.iter().copied().map(seconds).fold(f64::NEG_INFINITY, f64::max);
        // The last sample deserves a width, and nothing a width of zero.
        let to = (to + (to - from) * 0.02).max(from + 1.0);
        Self { ledger, proxy, numbers, from, to, ids }
    }

    fn x(&self, at: jiff::Timestamp) -> f64 {
        self.x_of(seconds(at))
    }

    fn x_of(&self, s: f64) -> f64 {
        round(LEFT + ((s - self.from) / (self.to - self.from)).clamp(0.0, 1.0) * PLOT)
    }

    fn colour(&self, generation: Option<usize>) -> String {
        generation.map_or_else(|| "gx".to_owned(), |i| format!("g{}", i % COLOURS))
    }

    fn number(&self, cert: &CertFacts) -> Option<usize> {
        self.numbers.get(&cert.fingerprint).copied()
    }

    fn draw(self) -> ProxyLanes {
        let mut lanes = vec![self.issued(), self.sent(), self.acked(), self.dumped(), self.loaded()];
        lanes.push(self.served(TlsRole::Inbound));
        lanes.push(self.served(TlsRole::Outbound));
        lanes.extend(self.bundle());
        for (i, lane) in lanes.iter_mut().enumerate() {
            lane.place(TOP + i as f64 * LANE);
        }
        let (lines, washes) = self.expiries();
        let height = TOP + lanes.len() as f64 * LANE + 26.0;
        let described =
            lanes.iter().map(|l| format!("{}: {}.", l.name, l.note.join(", "))).collect::<Vec<_>>().join(" ");
        ProxyLanes {
            id: self.proxy.id.to_string(),
            spiffe_id: plain(self.proxy.spiffe_id.as_deref().unwrap_or("identity unknown")),
            height,
            lines,
            washes,
            ticks: self.ticks(),
            day: self.ids.iter().min().map(|t| t.strftime("%Y-%m-%d UTC").to_string()).unwrap_or_default(),
            described,
            table: self
                .proxy
                .rows
                .iter()
                .enumerate()
                .take(MOST_TABLE_ROWS)
                .map(|(i, r)| TableRow::new(i, r, self.colour(Some(i))))
                .collect(),
            more: self.proxy.rows.len().saturating_sub(MOST_TABLE_ROWS),
            lanes,
        }
    }

    fn title(&self, generation: Option<usize>, said: &str, at: jiff::Timestamp) -> String {
        let which = match generation {
            Some(i) => format!("generation {i}, serial {}", self.proxy.rows[i].cert.serial.short()),
            None => "no generation that is known".to_owned(),
        };
        format!("{said} {}: {which}", clock(at))
    }

    fn issued(&self) -> Lane {
        let mut marks = Marks::default();
        let mut minted = 0;
        for (i, row) in self.proxy.rows.iter().enumerate() {
            let Entry::Reached { first, .. } = &row.issued else { continue };
            minted += 1;
            marks.add(self.x(first.at.wall), Form::Diamond, self.colour(Some(i)), || {
                self.title(Some(i), "minted at", first.at.wall)
            });
        }
        let note = if minted == 0 && !self.ledger.issuer_seen {
            vec!["unseen: no journal".to_owned()]
        } else {
            vec![format!("{minted} minted")]
        };
        Lane { name: "issued", marks: marks.shapes, note, ..Lane::default() }
    }

    fn sent(&self) -> Lane {
        let mut marks = Marks::default();
        let mut distinct = BTreeSet::new();
        let mut count = 0;
        for push in self.proxy.pushes_of(&self.proxy.svid) {
            count += 1;
            let leaf = push.leaf(&self.proxy.svid);
            let generation = leaf.and_then(|l| self.number(l));
            distinct.extend(leaf.map(|l| l.fingerprint));
            marks.add(self.x(push.mark.at.wall), Form::Block, self.colour(generation), || {
                let version = plain(push.version_info);
                format!("{}, version {version}", self.title(generation, "sent at", push.mark.at.wall))
            });
        }
        let note = if self.ledger.streams_seen {
            let kinds = counted(distinct.len(), "certificate");
            vec![format!("{}, {kinds}", counted(count, "response"))]
        } else {
            vec!["unseen: no stream".to_owned()]
        };
        // The same again and again is what the eye should stop at.
        let bad = count > 2 && distinct.len() == 1;
        Lane { name: "sent", marks: marks.shapes, note, bad, ..Lane::default() }
    }

    fn acked(&self) -> Lane {
        let mut marks = Marks::default();
        let (mut accepted, mut refused) = (0, 0);
        for push in self.proxy.pushes_of(&self.proxy.svid) {
            let generation = push.leaf(&self.proxy.svid).and_then(|l| self.number(l));
            match &push.answer {
                Some(Answer::Acked(mark)) => {
                    accepted += 1;
                    marks.add(self.x(mark.at.wall), Form::Dot, self.colour(generation), || {
                        self.title(generation, "accepted at", mark.at.wall)
                    });
                }
                Some(Answer::Nacked(mark, text)) => {
                    refused += 1;
                    marks.add(self.x(mark.at.wall), Form::Cross, "nack".to_owned(), || {
                        let said: String = plain(text).chars().take(300).collect();
                        format!("{}: {said}", self.title(generation, "refused at", mark.at.wall))
                    });
                }
                None => {}
            }
        }
        let note = match (self.ledger.streams_seen, refused) {
            (false, _) => vec!["unseen: no stream".to_owned()],
            (true, 0) => vec![format!("{accepted} accepted")],
            (true, _) => vec![format!("{accepted} accepted, {refused} refused")],
        };
        Lane { name: "acked", marks: marks.shapes, note, bad: refused > 0, ..Lane::default() }
    }

    fn dumped(&self) -> Lane {
        let mut held = Vec::new();
        let mut marks = Marks::default();
        let mut claims: BTreeSet<jiff::Timestamp> = BTreeSet::new();
        for dump in &self.proxy.dumps {
            let secret = dump.active(&self.proxy.svid);
            let leaf = secret.and_then(|s| s.chain.first());
            held.push(Sample { mark: dump.mark, holds: vec![(leaf.and_then(|l| self.number(l)), 1.0)] });
            if let Some(updated) = secret.and_then(|s| s.last_updated)
                && claims.insert(updated)
            {
                let x = self.x(updated);
                marks.add(x, Form::Claim, "claim".to_owned(), || format!("last_updated claims {}", clock(updated)));
            }
        }
        let distinct: BTreeSet<_> = held.iter().flat_map(|s| &s.holds).filter_map(|(g, _)| *g).collect();
        let note = match (claims.last(), held.is_empty()) {
            (_, true) => vec!["unseen: no config_dump".to_owned()],
            // Told where it is about to be contradicted, or at least has moved on.
            (Some(last), _) if claims.len() > distinct.len() => vec![format!("claims: updated at {}", clock(*last))],
            _ => vec![counted(distinct.len(), "certificate")],
        };
        let (bars, samples) = self.bars(&held, false);
        Lane { name: "dumped", bars, samples, marks: marks.shapes, note, ..Lane::default() }
    }

    fn loaded(&self) -> Lane {
        let sample = |load: &crate::timeline::ledger::Load| {
            let all = f64::from(load.contexts().max(1));
            let mut holds: Vec<(Option<usize>, f64)> = Vec::new();
            for (i, row) in self.proxy.rows.iter().enumerate() {
                let n = load.holding(row.cert);
                if n > 0 {
                    holds.push((Some(i), f64::from(n) / all));
                }
            }
            let known: f64 = holds.iter().map(|(_, share)| share).sum();
            if load.contexts() == 0 || known > 1.001 {
                // Nothing there, or two certificates that /certs can't tell apart.
                holds = vec![(None, 1.0)];
            } else if known < 0.999 {
                holds.push((None, 1.0 - known));
            }
            Sample { mark: load.mark, holds }
        };
        let held: Vec<Sample> = self.proxy.loads.iter().map(sample).collect();
        let note = match (self.proxy.loads.last(), self.proxy.rows.iter().rev()) {
            (None, _) => vec!["unseen: no /certs".to_owned()],
            (Some(last), mut rows) => match rows.find(|r| last.holding(r.cert) > 0) {
                Some(row) => vec![format!(
                    "{} of {} contexts",
                    last.holding(row.cert),
                    last.contexts().max(self.proxy.contexts.unwrap_or(0))
                )],
                None => vec!["no generation that is known".to_owned()],
            },
        };
        let (bars, samples) = self.bars(&held, true);
        let bad = bars.iter().any(|b| b.class == "expired");
        Lane { name: "loaded", bars, samples, note, bad, ..Lane::default() }
    }

    fn served(&self, role: TlsRole) -> Lane {
        let held: Vec<Sample> = self
            .proxy
            .full_handshakes(role)
            .map(|(s, leaf)| Sample { mark: s.mark, holds: vec![(self.number(leaf), 1.0)] })
            .collect();
        let last = self.proxy.full_handshakes(role).next_back();
        let (note, bad) = match last {
            None => (vec!["unseen: no full handshake".to_owned()], false),
            Some((s, leaf)) if leaf.not_after <= s.mark.at.wall => {
                let late = s.mark.at.wall.as_second().saturating_sub(leaf.not_after.as_second());
                (vec![format!("expired {} ago", span(late))], true)
            }
            Some((_, leaf)) => {
                let distinct: BTreeSet<_> = held.iter().flat_map(|s| &s.holds).filter_map(|(g, _)| *g).collect();
                (vec![counted(distinct.len(), "certificate"), format!("valid until {}", clock(leaf.not_after))], false)
            }
        };
        let (bars, samples) = self.bars(&held, true);
        let name = if role == TlsRole::Inbound { "served in" } else { "served out" };
        Lane { name, bars, samples, note, bad, ..Lane::default() }
    }

    /// The trust bundle, where it changed: a colour for each content, and what the proxy said to it.
    fn bundle(&self) -> Option<Lane> {
        let mut contents: Vec<&Fingerprint> = Vec::new();
        let mut marks = Marks::default();
        let (mut count, mut refused) = (0, 0);
        for (push, Bundle { roots, digest, .. }) in self.proxy.bundles() {
            count += 1;
            let content = contents.iter().position(|d| *d == digest).unwrap_or_else(|| {
                contents.push(digest);
                contents.len() - 1
            });
            let form = if push.refusal().is_some() { Form::Cross } else { Form::Block };
            let class = if form == Form::Cross { "nack".to_owned() } else { self.colour(Some(content)) };
            refused += u32::from(form == Form::Cross);
            marks.add(self.x(push.mark.at.wall), form, class, || {
                let said = if form == Form::Cross { "refused" } else { "sent" };
                let authorities = if roots.len() == 1 { "authority" } else { "authorities" };
                format!("{said} at {}: bundle {content}, {} {authorities}", clock(push.mark.at.wall), roots.len())
            });
        }
        let note = format!("{}, {}", counted(count, "response"), counted(contents.len(), "content"));
        let note = if refused > 0 { format!("{note}, {refused} refused") } else { note };
        let told = contents.len() > 1 || refused > 0;
        told.then(|| Lane {
            name: "bundle",
            marks: marks.shapes,
            note: vec![note],
            bad: refused > 0,
            ..Lane::default()
        })
    }

    /// Joins equal samples to bars; with `expiry`, what lies past a certificate's end is drawn over.
    fn bars(&self, samples: &[Sample], expiry: bool) -> (Vec<Bar>, String) {
        let mut bars = Vec::new();
        let mut strokes = String::new();
        let mut last_stroke = f64::NEG_INFINITY;
        let mut i = 0;
        while i < samples.len() {
            let first = &samples[i];
            while i < samples.len() && samples[i].holds == first.holds {
                let x = self.x(samples[i].mark.at.wall);
                if x - last_stroke >= 0.5 {
                    strokes.push_str(&format!("M{x} {}v3", BAR - 3.0));
                    last_stroke = x;
                }
                i += 1;
            }
            let from = seconds(first.mark.at.wall);
            let to = samples.get(i).map_or(self.to, |next| seconds(next.mark.at.wall));
            let (x, end) = (self.x_of(from), self.x_of(to));
            // Narrower ones cannot be seen; there may be very many.
            if end - x < 0.25 {
                continue;
            }
            let mut y = 0.0;
            for (generation, share) in &first.holds {
                let h = round(BAR * share);
                let label =
                    generation.filter(|_| end - x > 16.0 && h > 12.0).map(|g| g.to_string()).unwrap_or_default();
                let title = self.title(*generation, "shown from", first.mark.at.wall);
                bars.push(Bar { x, y, w: round(end - x), h, class: self.colour(*generation), label, title });
                let not_after = generation.map(|g| self.proxy.rows[g].cert.not_after).filter(|_| expiry);
                if let Some(gone) = not_after.filter(|t| seconds(*t) < to) {
                    let x = self.x_of(seconds(gone).max(from));
                    let title = format!("expired since {}", moment(gone));
                    let label = if end - x > 90.0 && h > 12.0 { "expired".to_owned() } else { String::new() };
                    bars.push(Bar { x, y, w: round(end - x), h, class: "expired".to_owned(), label, title });
                }
                y += h;
            }
        }
        (bars, strokes)
    }

    /// Where served certificates ended, and for how long they were served beyond; else where the first one ended.
    fn expiries(&self) -> (Vec<ExpiryLine>, Vec<Wash>) {
        let mut gone: BTreeSet<jiff::Timestamp> = BTreeSet::new();
        for role in [TlsRole::Inbound, TlsRole::Outbound] {
            let late = self.proxy.full_handshakes(role).filter(|(s, leaf)| leaf.not_after <= s.mark.at.wall);
            gone.extend(late.map(|(_, leaf)| leaf.not_after));
        }
        let mut lines: Vec<ExpiryLine> = Vec::new();
        let mut washes: Vec<Wash> = Vec::new();
        for at in gone.iter().take(3) {
            // Until the first full handshake after it that shows something valid.
            let healed = self
                .proxy
                .served
                .iter()
                .find(|s| s.mark.at.wall > *at && s.leaf().is_some_and(|leaf| leaf.not_after > s.mark.at.wall));
            let to = healed.map_or(self.to, |s| seconds(s.mark.at.wall));
            let x = self.x(*at);
            let end = self.x_of(to).max(x);
            match washes.last_mut() {
                Some(last) if x <= last.x + last.w => last.w = round(last.w.max(end - last.x)),
                _ => washes.push(Wash { x, w: round(end - x) }),
            }
            // As much of the label as has room beside the one before.
            let labels = [format!("served certificate expires {}", clock(*at)), clock(*at), String::new()];
            let from = lines.last().map_or(f64::MIN, |before| before.extent().1 + LABEL_GAP);
            let fitting = labels.into_iter().map(|label| line(x, label, true)).find(|l| l.extent().0 >= from);
            lines.push(fitting.unwrap_or_else(|| line(x, String::new(), true)));
        }
        let first = self.proxy.rows.first().map(|r| r.cert.not_after).filter(|t| seconds(*t) <= self.to);
        if let (true, Some(at)) = (gone.is_empty(), first) {
            lines.push(line(self.x(at), format!("first certificate expires {}", clock(at)), false));
        }
        (lines, washes)
    }

    fn ticks(&self) -> Vec<Tick> {
        const STEPS: [f64; 16] = [
            1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 10_800.0,
            21_600.0, 43_200.0,
        ];
        const MOST: f64 = 9.0;
        let length = self.to - self.from;
        let step = STEPS.into_iter().find(|s| length / s <= MOST).unwrap_or_else(|| {
            let days = (length / MOST / 86_400.0).ceil().max(1.0);
            days * 86_400.0
        });
        let first = (self.from / step).ceil() * step;
        (0..=MOST as usize)
            .map(|i| first + i as f64 * step)
            .filter(|s| *s <= self.to)
            .filter_map(|s| {
                let at = jiff::Timestamp::from_second(s as i64).ok()?;
                let format = if step >= 86_400.0 {
                    "%m-%d"
                } else if step >= 60.0 {
                    "%H:%M"
                } else {
                    "%H:%M:%S"
                };
                Some(Tick { x: self.x_of(s), label: at.strftime(format).to_string() })
            })
            .collect()
    }
}

fn line(x: f64, label: String, bad: bool) -> ExpiryLine {
    // A label at the right edge is written to the left of its line.
    let right = x > LEFT + PLOT * 0.72;
    let (anchor, label_x) = if right { ("end", x - 5.0) } else { ("start", x + 5.0) };
    ExpiryLine { x, label, bad, anchor, label_x }
}

impl ExpiryLine {
    /// From where to where the label reaches, about.
    fn extent(&self) -> (f64, f64) {
        let width = self.label.chars().count() as f64 * LABEL_CHAR;
        if self.anchor == "end" { (self.label_x - width, self.label_x) } else { (self.label_x, self.label_x + width) }
    }
}

impl Lane {
    /// Bars and marks are made at the top of their lane; this moves them to where the lane is.
    fn place(&mut self, y: f64) {
        self.y = y;
        self.middle = y + LANE / 2.0;
        let top = y + (LANE - BAR) / 2.0;
        for bar in &mut self.bars {
            bar.y = round(bar.y + top);
        }
    }

    pub(super) fn top(&self) -> f64 {
        self.y + (LANE - BAR) / 2.0
    }
}

struct Sample {
    mark: Mark,
    /// Generations and their shares; `None`: one that is not known.
    holds: Vec<(Option<usize>, f64)>,
}
