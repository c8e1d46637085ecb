//! Alerting rules, evaluated over what Prometheus would have scraped in real runs (fixtures/stats): each fires where a
//! mode is that it warns of, and none does where all is well.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected shall panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use promql_parser::parser::token::{T_EQLC, T_GTR, T_LOR, T_LSS, T_MIN, T_SUB, T_SUM};
use promql_parser::parser::{AggregateExpr, BinaryExpr, Expr, LabelModifier, VectorSelector, parse};
use rotacheck::verdict::{ALERTS, Alert};
use serde::Deserialize;

/// Between two evaluations, seconds. What was scraped last holds until then: nothing happens between the steps of a run.
const EVERY: i64 = 30;
/// A run's last state is held for so long, seconds.
const HELD: i64 = 600;

/// The runs in which nothing is wrong, or not for long.
const HEALTHY: [&str; 5] =
    ["rotation", "bundle-rotation", "stream-closed-once", "socket-replaced", "socket-unlinked-alive"];

#[derive(Deserialize)]
struct Recording {
    /// notAfter of the leaves that were shown, in their order.
    expiries: Vec<i64>,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    t: i64,
    proxy: String,
    /// What changed.
    series: BTreeMap<String, Option<f64>>,
}

type Labels = BTreeMap<String, String>;
type Vector = Vec<(Labels, f64)>;

/// When, and what was shown then.
type Samples = Vec<(i64, Option<f64>)>;

/// Each series, with the times from which its values held.
struct Database(Vec<(Labels, Samples)>);

impl Database {
    fn of(recording: &Recording) -> Self {
        let mut all: BTreeMap<Labels, Vec<(i64, Option<f64>)>> = BTreeMap::new();
        for sample in &recording.samples {
            for (series, value) in &sample.series {
                let mut labels = labels(series);
                labels.insert("instance".to_owned(), sample.proxy.clone());
                all.entry(labels).or_default().push((sample.t, *value));
            }
        }
        Self(all.into_iter().collect())
    }

    fn select<'a>(
        &'a self,
        selector: &'a VectorSelector,
    ) -> impl Iterator<Item = &'a (Labels, Vec<(i64, Option<f64>)>)> {
        self.0.iter().filter(move |(labels, _)| {
            let of = |name: &str| labels.get(name).map_or("", String::as_str);
            selector.name.as_deref().is_none_or(|name| of("__name__") == name)
                && selector.matchers.matchers.iter().all(|matcher| matcher.is_match(of(&matcher.name)))
        })
    }
}

/// `name{label="value"}`, as Envoy writes it.
fn labels(series: &str) -> Labels {
    let (name, rest) = series.split_once('{').unwrap();
    let pairs = rest.strip_suffix('}').unwrap().split(',').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.trim_matches('"').to_owned())
    });
    pairs.chain([("__name__".to_owned(), name.to_owned())]).collect()
}

enum Value {
    Scalar(f64),
    Vector(Vector),
}

/// The part of PromQL that the rules are written in. Anything else is refused.
fn evaluate(expr: &Expr, database: &Database, now: i64) -> Value {
    match expr {
        Expr::Paren(paren) => evaluate(&paren.expr, database, now),
        Expr::NumberLiteral(number) => Value::Scalar(number.val),
        Expr::VectorSelector(selector) => Value::Vector(
            database
                .select(selector)
                .filter_map(|(labels, values)| {
                    let value = values.iter().take_while(|(t, _)| *t <= now).last()?.1?;
                    Some((labels.clone(), value))
                })
                .collect(),
        ),
        Expr::Call(call) if call.func.name == "time" => Value::Scalar(now as f64),
        Expr::Call(call) if call.func.name == "increase" => {
            let [arg] = call.args.args.as_slice() else { panic!("increase of {:?}", call.args) };
            let Expr::MatrixSelector(matrix) = arg.as_ref() else { panic!("increase of {arg}") };
            let from = now - i64::try_from(matrix.range.as_secs()).unwrap();
            let mut seen = BTreeSet::new();
            let increased = database.select(&matrix.vs).map(|(labels, values)| {
                let mut labels = labels.clone();
                labels.remove("__name__");
                assert!(seen.insert(labels.clone()), "two series of one name in {expr}: Prometheus refuses that");
                (labels, increase(values, from, now))
            });
            Value::Vector(increased.collect())
        }
        Expr::Aggregate(aggregate) => Value::Vector(grouped(aggregate, vector(&aggregate.expr, database, now))),
        Expr::Binary(binary) => operated(binary, database, now),
        other => panic!("{other} is not in the part of PromQL that is evaluated here"),
    }
}

/// What a counter rose by, also over resets. Prometheus extrapolates as well, which changes no sign.
fn increase(values: &[(i64, Option<f64>)], from: i64, now: i64) -> f64 {
    let mut before = None;
    let mut sum = 0.0;
    for (t, value) in values.iter().take_while(|(t, _)| *t <= now).filter_map(|(t, v)| Some((*t, (*v)?))) {
        if let Some(before) = before.filter(|_| t > from) {
            sum += if value >= before { value - before } else { value };
        }
        before = Some(value);
    }
    sum
}

fn vector(expr: &Expr, database: &Database, now: i64) -> Vector {
    match evaluate(expr, database, now) {
        Value::Vector(vector) => vector,
        Value::Scalar(_) => panic!("{expr} is a scalar"),
    }
}

fn grouped(aggregate: &AggregateExpr, vector: Vector) -> Vector {
    let Some(LabelModifier::Include(by)) = &aggregate.modifier else { panic!("{aggregate} has no `by`") };
    let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for (labels, value) in vector {
        let kept = labels.into_iter().filter(|(name, _)| by.labels.contains(name)).collect();
        groups.entry(kept).or_default().push(value);
    }
    let value = |values: Vec<f64>| match aggregate.op.id() {
        T_MIN => values.into_iter().fold(f64::INFINITY, f64::min),
        T_SUM => values.into_iter().sum(),
        other => panic!("the aggregation {other} is not evaluated here"),
    };
    groups.into_iter().map(|(labels, values)| (labels, value(values))).collect()
}

fn operated(binary: &BinaryExpr, database: &Database, now: i64) -> Value {
    let (left, right) = (evaluate(&binary.lhs, database, now), evaluate(&binary.rhs, database, now));
    match (left, binary.op.id(), right) {
        (Value::Vector(left), T_LOR, Value::Vector(right)) => {
            let bare = |labels: &Labels| {
                let mut labels = labels.clone();
                labels.remove("__name__");
                labels
            };
            let known: BTreeSet<_> = left.iter().map(|(labels, _)| bare(labels)).collect();
            let more = right.into_iter().filter(|(labels, _)| !known.contains(&bare(labels)));
            Value::Vector(left.iter().cloned().chain(more).collect())
        }
        (Value::Vector(left), op, Value::Scalar(right)) => {
            let kept = left.into_iter().filter_map(|(labels, value)| match op {
                T_SUB => Some((labels, value - right)),
                T_LSS => (value < right).then_some((labels, value)),
                T_GTR => (value > right).then_some((labels, value)),
                T_EQLC => (value == right).then_some((labels, value)),
                other => panic!("the operator {other} is not evaluated here"),
            });
            Value::Vector(kept.collect())
        }
        _ => panic!("{binary} is not in the part of PromQL that is evaluated here"),
    }
}

fn seconds(hold: &str) -> i64 {
    let (number, unit) = hold.split_at(hold.len() - 1);
    number.parse::<i64>().unwrap()
        * match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            other => panic!("{other} is no unit that is known here"),
        }
}

/// When the rule fires first.
fn fires(alert: &Alert, recording: &Recording) -> Option<i64> {
    let expr = parse(alert.expr).unwrap_or_else(|e| panic!("{}: {e}", alert.name));
    let database = Database::of(recording);
    let times = || recording.samples.iter().map(|sample| sample.t);
    let mut pending: BTreeMap<Labels, i64> = BTreeMap::new();
    for now in (times().min().unwrap()..times().max().unwrap() + HELD).step_by(EVERY as usize) {
        let active: BTreeSet<Labels> = vector(&expr, &database, now).into_iter().map(|(labels, _)| labels).collect();
        pending.retain(|labels, _| active.contains(labels));
        for labels in active {
            let since = *pending.entry(labels).or_insert(now);
            if now - since >= seconds(alert.hold) {
                return Some(now);
            }
        }
    }
    None
}

fn directory() -> Utf8PathBuf {
    Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/stats")
}

/// A run with certificates that live as long as the rule is made for.
fn recording(alert: &Alert, scenario: &str) -> Recording {
    let days = if alert.expr.contains("days_until") { ".720h" } else { "" };
    let path = directory().join(format!("{scenario}{days}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What the scenario is called that shows a mode.
fn scenario(mode: &str) -> &str {
    if mode == "resend-cached" { "incident" } else { mode }
}

#[test]
fn each_rule_fires_where_a_mode_is_that_it_tells_of() {
    let mut silent = Vec::new();
    for alert in ALERTS {
        for mode in alert.warns.iter().chain(alert.tells) {
            let recording = recording(alert, scenario(mode));
            let fired = fires(alert, &recording);
            let expiry = recording.expiries.first().copied();
            let in_time =
                !alert.warns.contains(mode) || expiry.zip(fired).is_some_and(|(expiry, fired)| fired < expiry);
            if fired.is_none() || !in_time {
                silent.push(format!("{} of {mode}: fired {fired:?}, expiry {expiry:?}", alert.name));
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn no_rule_fires_where_all_is_well() {
    for alert in ALERTS {
        let runs: &[&str] = if alert.expr.contains("days_until") { &HEALTHY[..1] } else { &HEALTHY };
        for run in runs {
            assert_eq!(fires(alert, &recording(alert, run)), None, "{} in {run}", alert.name);
        }
    }
}

/// `cargo test --test alerts -- --ignored --nocapture`: to see of what a rule tells besides.
#[test]
#[ignore = "prints which rule fires in which recording"]
fn which_rule_fires_where() {
    for file in directory().read_dir_utf8().unwrap().map(|entry| entry.unwrap().into_path()) {
        let Some(name) = file.file_name().and_then(|name| name.strip_suffix(".json")) else { continue };
        let recording: Recording = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let begin = recording.samples.iter().map(|sample| sample.t).min().unwrap();
        let fired: Vec<_> =
            ALERTS.iter().filter_map(|a| Some(format!("{} +{} s", a.name, fires(a, &recording)? - begin))).collect();
        let expiry = recording.expiries.first().map(|t| t - begin);
        println!("{name} (expiry +{expiry:?}): {}", fired.join(", "));
    }
}
