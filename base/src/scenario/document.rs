//! YAML into types, with the place of every value kept, so that what is wrong can be shown where it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error as Yaml, Location, Spanned};

use super::error::{Problem, ScenarioError};

/// Larger files are no scenarios.
const LARGEST: usize = 1 << 20;

/// A parsed file.
pub struct Document<'a, T> {
    file: &'a str,
    text: &'a str,
    /// What it says.
    pub value: T,
}

impl<'a, T: DeserializeOwned> Document<'a, T> {
    /// Parses a text; `file` is how the user knows it.
    pub fn parse(text: &'a str, file: &'a str) -> Result<Self, ScenarioError> {
        if text.len() > LARGEST {
            let message = format!("{file} has {} bytes; a file may have at most {LARGEST}", text.len());
            return Err(ScenarioError::unreadable(file, message));
        }
        match serde_saphyr::from_str_with_options(text, options()) {
            Ok(value) => Ok(Self { file, text, value }),
            Err(e) => Err(syntax_error(text, file, &e)),
        }
    }
}

impl<T> Document<'_, T> {
    /// The value, unless a check found something wrong with it.
    pub fn checked(self, problems: Vec<Problem>) -> Result<T, ScenarioError> {
        match refusal(self.text, self.file, problems) {
            Some(error) => Err(error),
            None => Ok(self.value),
        }
    }
}

/// What checks found wrong with a file, each shown at its place; `None` if they found nothing.
pub fn refusal(text: &str, file: &str, problems: Vec<Problem>) -> Option<ScenarioError> {
    let places: Option<Place> = match problems.as_slice() {
        [] => return None,
        _ => serde_saphyr::from_str_with_options(text, options()).ok(),
    };
    let errors = problems.into_iter().map(|problem| {
        let span = places.as_ref().and_then(|root| root.find(&problem.path));
        ScenarioError::new(file, text, span.or(Some(0..0)), problem.message)
            .with_label(problem.path)
            .with_help(problem.help)
    });
    ScenarioError::of_many(errors.collect())
}

/// A scenario has some fifty nodes; what is far beyond that is a bomb, not a scenario.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 50_000,
            max_aliases: 100,
            max_anchors: 100,
            max_recorded_anchor_events: 10_000,
            max_recorded_anchor_bytes: LARGEST,
            max_depth: 16,
            max_documents: 1,
            max_nodes: 20_000,
            max_total_scalar_bytes: LARGEST,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 100,
        },
        with_snippet: false,
    }
}

fn syntax_error(text: &str, file: &str, error: &Yaml) -> ScenarioError {
    let error = error.without_snippet();
    let span = error.location().and_then(|location| byte_range(&location).or_else(|| line_start(text, &location)));
    let missing_file = (text.trim().is_empty()).then(|| format!("{file} is empty"));
    let message = missing_file.unwrap_or_else(|| message(error));
    ScenarioError::new(file, text, span.or(Some(0..0)), message).with_help(help(error))
}

fn message(error: &Yaml) -> String {
    match error {
        Yaml::SerdeUnknownField { field, .. } => format!("unknown key {}", quoted(field)),
        Yaml::SerdeUnknownVariant { variant, .. } => format!("unknown value {}", quoted(variant)),
        Yaml::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Yaml::DuplicateMappingKey { key: Some(key), .. } => format!("the key {} is given twice", quoted(key)),
        Yaml::SerdeInvalidType { unexpected, expected, .. } | Yaml::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("{} where {expected} is expected", shortened(unexpected))
        }
        Yaml::Message { msg, .. } => shortened(msg),
        Yaml::AliasError { error, .. } => message(error),
        Yaml::NullIntoString { .. } => "a value is missing".to_owned(),
        Yaml::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => "a single word is expected".to_owned(),
        Yaml::InvalidScalar { ty: "u8" | "u16" | "u32" | "u64", .. } => {
            "a whole number, 0 or more, is expected".to_owned()
        }
        other => {
            let options = serde_saphyr::render_options! {
                formatter: &serde_saphyr::UserMessageFormatter,
                snippets: serde_saphyr::SnippetMode::Off,
            };
            let text = other.render_with_options(options);
            // The place is shown by the caret.
            shortened(text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text))
        }
    }
}

fn help(error: &Yaml) -> Option<String> {
    let (given, expected) = match error {
        Yaml::SerdeUnknownField { field, expected, .. } => (field, expected),
        Yaml::SerdeUnknownVariant { variant, expected, .. } => (variant, expected),
        Yaml::AliasError { error, .. } => return help(error),
        _ => return None,
    };
    if let Some(near) = crate::scenario::nearest(given, expected.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let list: Vec<String> = expected.iter().map(|name| format!("`{name}`")).collect();
    (!list.is_empty()).then(|| format!("possible here: {}", list.join(", ")))
}

fn quoted(text: &str) -> String {
    format!("`{}`", shortened(text))
}

/// Hostile input is not echoed at length, nor with control characters.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(LONGEST).map(clean).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

fn byte_range(location: &Location) -> Option<Range<usize>> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let len = usize::try_from(span.byte_len().unwrap_or(0)).ok()?;
    Some(start..start.saturating_add(len))
}

/// Errors of the scanner come without byte offsets.
fn line_start(text: &str, location: &Location) -> Option<Range<usize>> {
    let line = usize::try_from(location.line()).ok()?.checked_sub(1)?;
    let column = usize::try_from(location.column()).ok()?.saturating_sub(1);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let bytes: usize = text[start..].chars().take_while(|c| *c != '\n').take(column).map(char::len_utf8).sum();
    Some(start + bytes..start + bytes)
}

/// Any YAML value, of which only the places are kept.
struct Place {
    span: Option<Range<usize>>,
    inner: Inner,
}

enum Inner {
    Scalar,
    List(Vec<Place>),
    Map(BTreeMap<String, (Option<Range<usize>>, Place)>),
}

impl Place {
    /// The place of the value at `provider.faults[1].proxy`; where the file leaves it out, that of what would hold it.
    fn find(&self, path: &str) -> Option<Range<usize>> {
        let mut here = self;
        let mut span = None;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match &here.inner {
                Inner::Map(entries) => entries.get(step).map(|(key, value)| {
                    // A block mapping begins at its first key: its own key is what the reader knows it by.
                    let of_value = matches!(value.inner, Inner::Scalar).then(|| value.span.clone()).flatten();
                    (value, of_value.or_else(|| key.clone()))
                }),
                Inner::List(items) => {
                    let index = step.trim_end_matches(']').parse::<usize>().ok();
                    index.and_then(|index| items.get(index)).map(|item| (item, item.span.clone()))
                }
                Inner::Scalar => None,
            };
            let Some((place, at)) = next else { break };
            here = place;
            span = at.or(span);
        }
        span
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Inner>::deserialize(deserializer)?;
        Ok(Place { span: byte_range(&spanned.referenced), inner: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InnerVisitor)
    }
}

struct InnerVisitor;

impl<'de> Visitor<'de> for InnerVisitor {
    type Value = Inner;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Inner, E> {
        Ok(Inner::Scalar)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Inner, E> {
        Ok(Inner::Scalar)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Inner, E> {
        Ok(Inner::Scalar)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Inner, E> {
        Ok(Inner::Scalar)
    }
    fn visit_str<E>(self, _: &str) -> Result<Inner, E> {
        Ok(Inner::Scalar)
    }
    fn visit_unit<E>(self) -> Result<Inner, E> {
        Ok(Inner::Scalar)
    }
    fn visit_none<E>(self) -> Result<Inner, E> {
        Ok(Inner::Scalar)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Inner, D::Error> {
        Inner::deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Inner, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Inner::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Inner, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let span = byte_range(&key.referenced);
            let value = map.next_value::<Place>().map_err(de::Error::custom)?;
            entries.insert(key.value, (span, value));
        }
        Ok(Inner::Map(entries))
    }
}
