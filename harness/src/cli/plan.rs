//! `rotacheck plan`.

use serde::Serialize;

use super::page::{Page, print_json};
use super::selection::SelectionArgs;
use super::{CliError, Exit, list};
use crate::plan::Cell;
use crate::scenario::{ClockKind, Role, Scenario};
use crate::timeline::Expectation;

/// Arguments of `rotacheck plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is downloaded or started. It takes the same selection as `rotacheck run`.")]
pub struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
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
    if args.json {
        print_json(&plan.cells.iter().map(Planned::from).collect::<Vec<_>>());
        return Ok(Exit::AsExpected);
    }
    let mut page = Page::new();
    show(&mut page, &plan.cells);
    page.print();
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
