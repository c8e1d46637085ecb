//! Lengths of time and shares of a lifetime, as scenario files and options write them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time: `90s`, `2m`, `1h30m`, `250ms`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

impl Span {
    /// That many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// That many milliseconds.
    pub const fn millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// As a duration.
    pub fn duration(self) -> Duration {
        self.0
    }

    /// Whole seconds, rounded down.
    pub fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Parses `1h30m`, `90s`, `250ms`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no length of time; write it as 90s, 2m, 1h30m or 250ms");
        if text.is_empty() || !text.is_ascii() {
            return Err(bad());
        }
        let mut total = Duration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let unit_len = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(unit_len);
            let n: u64 = number.parse().map_err(|_| bad())?;
            let part = match unit {
                "ms" => Some(Duration::from_millis(n)),
                "s" => Some(Duration::from_secs(n)),
                "m" => n.checked_mul(60).map(Duration::from_secs),
                "h" => n.checked_mul(3600).map(Duration::from_secs),
                _ => return Err(bad()),
            };
            total = part.and_then(|p| total.checked_add(p)).ok_or_else(bad)?;
            rest = tail;
        }
        // A hundred years: what lies beyond is a typing mistake, and would overflow certificate times.
        if total > Duration::from_secs(100 * 366 * 86_400) {
            return Err(format!("{text:?} is longer than a hundred years"));
        }
        Ok(Self(total))
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl std::str::FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
        let mut text = String::new();
        for (n, unit) in [(h, "h"), (m, "m"), (s, "s"), (ms, "ms")] {
            if n > 0 {
                text.push_str(&format!("{n}{unit}"));
            }
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(any(test, feature = "testing"))]
impl schemars::JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A length of time: 90s, 2m, 1h30m, 250ms.",
            "pattern": "^([0-9]+(ms|s|m|h))+$"
        })
    }
}

/// A share of the TTL (`10%`), or a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Share {
    /// Percent of the TTL.
    Percent(u8),
    /// A length of time.
    Time(Span),
}

impl Default for Share {
    fn default() -> Self {
        Share::Percent(10)
    }
}

impl Share {
    /// How long that is with this TTL.
    pub fn of(self, ttl: Span) -> Span {
        match self {
            Share::Percent(p) => Span(ttl.duration() * u32::from(p) / 100),
            Share::Time(span) => span,
        }
    }
}

impl TryFrom<String> for Share {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_suffix('%') {
            Some(number) => match number.parse::<u8>() {
                Ok(p) if p <= 100 => Ok(Share::Percent(p)),
                _ => Err(format!("{text:?} is no share; write it as 10%")),
            },
            None => Span::parse(&text).map(Share::Time),
        }
    }
}

impl From<Share> for String {
    fn from(share: Share) -> String {
        match share {
            Share::Percent(p) => format!("{p}%"),
            Share::Time(span) => span.to_string(),
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl schemars::JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A share of the TTL (10%) or a length of time (12s).",
            "pattern": "^([0-9]{1,3}%|([0-9]+(ms|s|m|h))+)$"
        })
    }
}
