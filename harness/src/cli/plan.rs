//! `rotacheck plan`.

use serde::Serialize;

use super::page::{Page, print_json, print_json_line};
use super::selection::SelectionArgs;
use super::{CliError, Exit, list};
use crate::plan::{Cell, Shard};
use crate::scenario::{ClockKind, Role, Scenario};
use crate::timeline::Expectation;

/// Arguments of `rotacheck plan`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Nothing is downloaded or started. It takes the same selection as `rotacheck run`.

Examples:
  rotacheck plan 'rotation*' --envoy 1.38.3
  rotacheck plan --format github-matrix --shards 4     a job for each part: `rotacheck run --shard ${{ matrix.shard }}`,
                                                       then `rotacheck merge` of their run directories")]
pub struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// How it is written.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The same as `--format json`.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Parts that the plan is dealt out into, for `github-matrix`; never more than it has cells.
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=i64::from(Shard::MOST)))]
    shards: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A line for each cell.
    Text,
    /// All that is known of each cell.
    Json,
    /// A `strategy.matrix` of GitHub Actions, on one line: `shard` is what `rotacheck run --shard` takes.
    GithubMatrix,
}

/// What GitHub Actions makes jobs of: the combinations of `include`.
#[derive(Serialize)]
struct GithubMatrix {
    include: Vec<GithubJob>,
}

#[derive(Serialize)]
struct GithubJob {
    shard: String,
    cells: usize,
}

impl GithubMatrix {
    fn of(cells: usize, shards: u32) -> Self {
        let shards = shards.min(u32::try_from(cells).unwrap_or(u32::MAX)).max(1);
        let job = |shard: Shard| GithubJob {
            shard: shard.to_string(),
            cells: (0..cells).filter(|place| shard.has(*place)).count(),
        };
        Self { include: Shard::all(shards).map(job).collect() }
    }
}

#[derive(Serialize)]
struct Planned<'a> {
    cell: String,
    scenario: &'a str,
    role: Role,
    envoy: String,
    istio: Option<String>,
    provider: &'static str,
    spire: Option<String>,
    clock: ClockKind,
    observed_s: u64,
    renewals: u32,
    proxies: u32,
    contexts: u32,
    expect: &'a Expectation,
    unsupported: Option<&'a str>,
    command: String,
}

impl<'a> From<&'a Cell> for Planned<'a> {
    fn from(cell: &'a Cell) -> Self {
        let scenario = &cell.scenario;
        Planned {
            cell: cell.label(),
            scenario: scenario.name.as_str(),
            role: scenario.role,
            envoy: cell.envoy.to_string(),
            istio: cell.istio.as_ref().map(ToString::to_string),
            provider: scenario.provider.kind.name(),
            spire: cell.spire.as_ref().map(ToString::to_string),
            clock: scenario.clock,
            observed_s: scenario.observed().as_secs(),
            renewals: scenario.renewals(),
            proxies: scenario.fleet.proxies,
            contexts: scenario.fleet.contexts,
            expect: &scenario.expect,
            unsupported: cell.unsupported.as_deref(),
            command: cell.command(),
        }
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let plan = args.selection.plan()?;
    match if args.json { Format::Json } else { args.format } {
        Format::Json => print_json(&plan.cells.iter().map(Planned::from).collect::<Vec<_>>()),
        // On one line: outputs of jobs are lines.
        Format::GithubMatrix => print_json_line(&GithubMatrix::of(plan.cells.len(), args.shards)),
        Format::Text => {
            let mut page = Page::new();
            show(&mut page, &plan.cells);
            page.print();
        }
    }
    Ok(Exit::AsExpected)
}

/// One cell, one line: a machine can count them.
fn show(page: &mut Page, cells: &[Cell]) {
    let longest = cells.iter().map(|cell| cell.label().chars().count()).max().unwrap_or(0);
    for cell in cells {
        let label = cell.label();
        let what = match &cell.unsupported {
            Some(reason) => format!("unsupported: {reason}"),
            None => describe(&cell.scenario),
        };
        page.line(&format!("{label:longest$}  {what}"));
    }
}

fn describe(scenario: &Scenario) -> String {
    let clock = match scenario.clock {
        ClockKind::Virtual => "virtual",
        ClockKind::Real => "real",
    };
    let expected = list::expected(&scenario.expect);
    format!("{} {clock}, {} renewals, expected {expected}", scenario.observed(), scenario.renewals())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Library, Overrides, Plan, Selection};

    #[test]
    fn a_job_of_the_continuous_integration_has_as_many_cells_as_any_other_and_none_is_empty() {
        let shards = |cells, n| serde_json::to_value(GithubMatrix::of(cells, n)).unwrap();
        let include = |jobs: &[(&str, usize)]| {
            let jobs: Vec<_> = jobs.iter().map(|(s, n)| serde_json::json!({"shard": s, "cells": n})).collect();
            serde_json::json!({ "include": jobs })
        };
        assert_eq!(shards(10, 4), include(&[("1/4", 3), ("2/4", 3), ("3/4", 2), ("4/4", 2)]));
        assert_eq!(shards(2, 4), include(&[("1/2", 1), ("2/2", 1)]));
    }

    #[test]
    fn a_plan_has_one_line_for_each_cell() {
        let selection = Selection {
            scenarios: vec!["incident".to_owned(), "stream-closed-once".to_owned()],
            envoys: vec!["1.38.3".parse().unwrap(), "path=/opt/envoy".parse().unwrap()],
            overrides: Overrides { proxies: Some(3), ..Overrides::default() },
            ..Selection::default()
        };
        let plan = Plan::select(&Library::embedded(), &selection).unwrap();
        let mut page = Page::plain(60);
        show(&mut page, &plan.cells);
        insta::assert_snapshot!(page.text());
        let planned: Vec<Planned> = plan.cells.iter().map(Planned::from).collect();
        insta::assert_json_snapshot!(planned[0]);
    }
}
