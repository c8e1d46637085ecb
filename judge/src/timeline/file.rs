//! A timeline on disk: NDJSON, one header, observations, one footer.

use std::io::{BufRead, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::fact::Data;
use super::{At, Fact, Footer, Header, Observation, SCHEMA_VERSION, Source};

/// A whole recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// What it is about.
    pub header: Header,
    /// In the order of their `seq`.
    pub observations: Vec<Observation>,
    /// Absent in a truncated recording.
    pub footer: Option<Footer>,
}

/// Why a timeline cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system said no.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It holds nothing.
    #[error("the file is empty")]
    Empty,
    /// A line is not what it should be.
    #[error("line {line}: {why}")]
    Line {
        /// From 1.
        line: usize,
        /// In words.
        why: String,
    },
    /// Written by a later rotacheck.
    #[error("it has schema version {found}, this rotacheck reads {SCHEMA_VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
}

/// A longer line is refused: no observation of ours comes near, and a hostile file must not fill the memory.
const LONGEST_LINE: usize = 16 << 20;

#[derive(Serialize, Deserialize)]
struct HeaderLine {
    header: Header,
}
#[derive(Serialize, Deserialize)]
struct FooterLine {
    footer: Footer,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    schema_version: Option<u32>,
    seq: u64,
    mono_ns: u64,
    wall: jiff::Timestamp,
    #[serde(default)]
    offset_s: i64,
    source: Source,
    #[serde(default)]
    proxy: Option<super::ProxyId>,
    #[serde(default)]
    secret: Option<super::SecretName>,
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Serialize)]
struct LineOut<'a> {
    schema_version: u32,
    seq: u64,
    mono_ns: u64,
    wall: jiff::Timestamp,
    offset_s: i64,
    source: Source,
    proxy: &'a Option<super::ProxyId>,
    secret: &'a Option<super::SecretName>,
    kind: &'a str,
    data: Data<'a>,
}

/// Writes the first line.
///
/// # Errors
///
/// What writing gives.
pub fn write_header(out: &mut dyn Write, header: &Header) -> std::io::Result<()> {
    json_line(out, &HeaderLine { header: header.clone() })
}

/// Writes the last line.
///
/// # Errors
///
/// What writing gives.
pub fn write_footer(out: &mut dyn Write, footer: &Footer) -> std::io::Result<()> {
    json_line(out, &FooterLine { footer: footer.clone() })
}

/// Writes one line in between, as a whole or not at all.
///
/// # Errors
///
/// What writing gives; [`LineTooLong`] in it for one that could not be read again.
pub fn write_observation(out: &mut dyn Write, o: &Observation) -> std::io::Result<()> {
    json_line(
        out,
        &LineOut {
            schema_version: SCHEMA_VERSION,
            seq: o.seq,
            mono_ns: u64::try_from(o.at.mono.as_nanos()).unwrap_or(u64::MAX),
            wall: o.at.wall,
            offset_s: o.at.offset_s,
            source: o.source,
            proxy: &o.proxy,
            secret: &o.secret,
            kind: o.fact.kind(),
            data: Data(&o.fact),
        },
    )
}

/// A line that whoever reads the timeline would refuse.
#[derive(Debug, thiserror::Error)]
#[error("a line of {bytes} bytes is longer than any that is read")]
pub struct LineTooLong {
    /// With its line feed.
    pub bytes: usize,
}

// Nothing that reads or writes is generic: the harness, which is compiled for a quick build, would have a slow copy.
fn json_line(out: &mut dyn Write, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    if line.len() >= LONGEST_LINE {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, LineTooLong { bytes: line.len() }));
    }
    out.write_all(&line)
}

impl Timeline {
    /// Reads a timeline. A file that ends early is read as far as it goes and has no footer.
    pub fn read(mut input: impl BufRead) -> Result<Self, ReadError> {
        Self::read_lines(&mut input)
    }

    fn read_lines(input: &mut dyn BufRead) -> Result<Self, ReadError> {
        let mut number = 0;
        let mut bytes = Vec::new();
        let mut next = |bytes: &mut Vec<u8>| -> Result<Option<(usize, bool)>, ReadError> {
            bytes.clear();
            number += 1;
            let mut limited = std::io::Read::take(&mut *input, LONGEST_LINE as u64);
            let n = limited.read_until(b'\n', bytes)?;
            if n == LONGEST_LINE {
                return Err(ReadError::Line { line: number, why: format!("it is longer than {LONGEST_LINE} bytes") });
            }
            Ok((n > 0).then_some((number, bytes.ends_with(b"\n"))))
        };
        let no_text = |line: usize| ReadError::Line { line, why: "it is not UTF-8".into() };

        let Some((line, _)) = next(&mut bytes)? else { return Err(ReadError::Empty) };
        let text = std::str::from_utf8(&bytes).map_err(|_| no_text(line))?;
        let at = |line: usize| move |e: serde_json::Error| ReadError::Line { line, why: e.to_string() };
        // The version first: a later header may have another shape.
        let probe: serde_json::Value = serde_json::from_str(text).map_err(at(line))?;
        match probe.pointer("/header/schema_version").and_then(serde_json::Value::as_u64) {
            Some(v) if v == u64::from(SCHEMA_VERSION) => {}
            Some(v) => return Err(ReadError::Version { found: u32::try_from(v).unwrap_or(u32::MAX) }),
            None => return Err(ReadError::Line { line, why: "it is no timeline header".into() }),
        }
        let header = serde_json::from_value::<HeaderLine>(probe).map_err(at(line))?.header;

        let mut observations = Vec::new();
        let mut footer = None;
        while let Some((line, whole)) = next(&mut bytes)? {
            if footer.is_some() {
                return Err(ReadError::Line { line, why: "something follows the footer".into() });
            }
            let text = match std::str::from_utf8(&bytes) {
                Ok(text) => text,
                // It was cut in the middle of a character.
                Err(_) if !whole => break,
                Err(_) => return Err(no_text(line)),
            };
            if text.trim().is_empty() {
                continue;
            }
            match read_observation(text) {
                Ok(o) if o.seq == observations.len() as u64 => observations.push(o),
                Ok(o) => {
                    let why = format!("seq is {}, {} was due", o.seq, observations.len());
                    return Err(ReadError::Line { line, why });
                }
                Err(e) => match serde_json::from_str::<FooterLine>(text) {
                    Ok(end) => footer = Some(end.footer),
                    // A last line that was cut in the middle is what a killed writer leaves.
                    Err(_) if !whole => break,
                    Err(_) => return Err(at(line)(e)),
                },
            }
        }
        Ok(Self { header, observations, footer })
    }

    /// Whether the footer is there, counts what is there, and says that the cell came to its planned end.
    pub fn incomplete(&self) -> Option<String> {
        match &self.footer {
            None => Some("the recording has no footer: it was cut short".into()),
            Some(f) if f.observations != self.observations.len() as u64 => Some(format!(
                "the footer counts {} observations, {} are there",
                f.observations,
                self.observations.len()
            )),
            Some(f) if !f.complete => {
                Some(f.reason.clone().unwrap_or_else(|| "the cell did not come to its planned end".into()))
            }
            Some(_) => None,
        }
    }

    /// Writes the timeline in its form on disk.
    pub fn write(&self, mut out: impl Write) -> std::io::Result<()> {
        self.write_lines(&mut out)
    }

    fn write_lines(&self, out: &mut dyn Write) -> std::io::Result<()> {
        write_header(out, &self.header)?;
        for o in &self.observations {
            write_observation(out, o)?;
        }
        if let Some(f) = &self.footer {
            write_footer(out, f)?;
        }
        out.flush()
    }
}

/// Reads one line in between.
///
/// # Errors
///
/// What is no observation of this version.
pub fn read_observation(text: &str) -> serde_json::Result<Observation> {
    let line: Line<'_> = serde_json::from_str(text)?;
    if let Some(v) = line.schema_version.filter(|v| *v != SCHEMA_VERSION) {
        return Err(serde::de::Error::custom(format!("schema version {v} is not {SCHEMA_VERSION}")));
    }
    Ok(Observation {
        seq: line.seq,
        at: At { mono: Duration::from_nanos(line.mono_ns), wall: line.wall, offset_s: line.offset_s },
        source: line.source,
        proxy: line.proxy,
        secret: line.secret,
        fact: match line.source {
            // A known kind may mean something else there.
            Source::Unknown => Fact::unknown(&line.kind, line.data.get())?,
            _ => Fact::from_parts(&line.kind, line.data.get())?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::Log;
    use super::*;

    const RECORDED: &[u8] = include_bytes!("../../../fixtures/timelines/rotation.ndjson");

    /// A recording of one fact, with these words.
    fn recorded(line: &str) -> Timeline {
        let mut timeline = Timeline::read(RECORDED).expect("a fixture");
        timeline.observations.truncate(1);
        timeline.observations[0].fact = Log { line: line.to_owned() }.into();
        timeline.footer = None;
        timeline
    }

    #[test]
    fn a_recording_is_read_as_far_as_it_goes_wherever_it_is_cut() {
        let mut bytes = Vec::new();
        recorded("Zertifikat abgelaufen: \u{fc}berf\u{e4}llig \u{1f512}").write(&mut bytes).expect("memory");
        let header = bytes.iter().position(|b| *b == b'\n').expect("a first line");
        for end in header + 1..bytes.len() {
            let read = Timeline::read(&bytes[..end]).unwrap_or_else(|e| panic!("cut at {end}: {e}"));
            assert!(read.incomplete().is_some());
        }
        let at = bytes.iter().position(|b| *b >= 0x80).expect("a letter of two bytes");
        bytes.remove(at);
        let damaged = Timeline::read(bytes.as_slice()).expect_err("a line with an end is damaged, not cut");
        assert!(damaged.to_string().contains("line 2: it is not UTF-8"), "{damaged}");
    }

    #[test]
    fn a_line_that_nobody_could_read_is_not_written() {
        let mut bytes = Vec::new();
        let o = &recorded(&"x".repeat(LONGEST_LINE)).observations[0];
        let refused = write_observation(&mut bytes, o).expect_err("it is too long");
        assert!(refused.get_ref().is_some_and(|e| e.is::<LineTooLong>()) && bytes.is_empty(), "{refused}");
    }

    #[test]
    fn what_a_source_that_is_not_known_saw_is_kept_and_ignored() {
        let text = std::str::from_utf8(RECORDED).unwrap();
        let known = Timeline::read(RECORDED).unwrap();
        let later = text.replace("\"source\":\"census\"", "\"source\":\"moon\"");
        assert_ne!(later, text);
        let read = Timeline::read(later.as_bytes()).unwrap();
        assert_eq!(read.observations.len(), known.observations.len());
        for (read, known) in read.observations.iter().zip(&known.observations) {
            match known.source {
                Source::Census => assert!(
                    matches!(&read.fact, Fact::Unknown { kind, .. } if kind == known.fact.kind())
                        && read.source == Source::Unknown
                ),
                _ => assert_eq!(read, known),
            }
        }
        let mut written = Vec::new();
        read.write(&mut written).unwrap();
        assert_eq!(Timeline::read(&written[..]).unwrap(), read);
    }
}
