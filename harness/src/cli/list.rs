//! `rotacheck list`.

use serde::Serialize;

use super::page::{Page, print_json};
use super::selection::LibraryArgs;
use super::{CliError, Exit};
use crate::scenario::{ExpectedJudgement, Role, Scenario};
use crate::timeline::{Expectation, ScenarioName};

/// Arguments of `rotacheck list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A name can be given to `rotacheck run`; `rotacheck plan NAME` shows what it would do.")]
pub struct Args {
    #[command(flatten)]
    library: LibraryArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a ScenarioName,
    role: Role,
    summary: &'a str,
    expect: &'a Expectation,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let library = args.library.open()?;
    let (scenarios, controls, real) = (library.scenarios()?, library.controls()?, library.real()?);
    if args.json {
        let listed = scenarios.iter().chain(&controls).chain(&real).map(|s| Listed {
            name: &s.name,
            role: s.role,
            summary: &s.summary,
            expect: &s.expect,
        });
        print_json(&listed.collect::<Vec<_>>());
        return Ok(Exit::AsExpected);
    }
    let mut page = Page::new();
    show(&mut page, &scenarios, &controls, &real);
    page.print();
    Ok(Exit::AsExpected)
}

fn show(page: &mut Page, scenarios: &[Scenario], controls: &[Scenario], real: &[Scenario]) {
    let row = |s: &Scenario| [s.name.to_string(), role(s.role).to_owned(), expected(&s.expect), s.summary.clone()];
    let table = |page: &mut Page, all: &[Scenario]| {
        page.table(["SCENARIO", "ROLE", "EXPECTED", "WHAT IT SHOWS"], &all.iter().map(row).collect::<Vec<_>>());
    };
    table(page, scenarios);
    page.line("");
    if !controls.is_empty() {
        page.paragraph(0, "Run where they are named, by a glob, or all of them by `rotacheck selfcheck`:");
        page.line("");
        table(page, controls);
        page.line("");
    }
    if !real.is_empty() {
        page.paragraph(0, "On real parts, Istio's agent and istiod or a real provider; run where they are named:");
        page.line("");
        table(page, real);
        page.line("");
    }
    page.paragraph(0, "A control seeds a fault that must be caught and blamed on the layer given. `rotacheck explain MODE` says what a mode is.");
}

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Conformance => "conformance",
        Role::Control => "control",
    }
}

/// `pass`, `fail: sent`, `inconclusive`.
pub(super) fn expected(expect: &Expectation) -> String {
    match (expect.judgement, expect.layer) {
        (ExpectedJudgement::Pass, _) => "pass".to_owned(),
        (ExpectedJudgement::Fail, Some(layer)) => format!("fail: {layer}"),
        (ExpectedJudgement::Fail, None) => "fail".to_owned(),
        (ExpectedJudgement::Inconclusive, _) => "inconclusive".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Library;

    #[test]
    fn the_list_fits_a_narrow_terminal() {
        let mut page = Page::plain(80);
        let library = Library::embedded();
        show(&mut page, &library.scenarios().unwrap(), &library.controls().unwrap(), &library.real().unwrap());
        insta::assert_snapshot!(page.text());
    }
}
