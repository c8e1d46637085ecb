//! `rotacheck explain`.

use std::collections::BTreeMap;

use super::page::{Page, print, print_json};
use super::{CliError, Exit};
use crate::plan::Library;
use crate::scenario::nearest;
use crate::verdict::{ALERTS, MODES, Mode, alerts_of, mode, rule_file, why_no_alert};

/// Arguments of `rotacheck explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The mode, as a verdict names it, such as `resend-cached` [default: list them all].
    #[arg(value_name = "MODE")]
    name: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// The Prometheus rules that would have warned of it, as a file to load [default: all of them].
    #[arg(long, conflicts_with = "json")]
    alert: bool,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let mut page = Page::new();
    match args.name {
        None if args.alert => print(&rule_file(&ALERTS.iter().collect::<Vec<_>>())),
        Some(name) if args.alert => print(&alerts(mode(&name).ok_or_else(|| unknown(&name))?)),
        None if args.json => print_json(&MODES.iter().map(as_json).collect::<Vec<_>>()),
        None => {
            list(&mut page);
            page.print();
        }
        Some(name) => {
            let mode = mode(&name).ok_or_else(|| unknown(&name))?;
            if args.json {
                print_json(&as_json(mode));
            } else {
                explain(&mut page, mode);
                page.print();
            }
        }
    }
    Ok(Exit::AsExpected)
}

/// A rule file of one mode; where it has no rule, it says why.
fn alerts(mode: &Mode) -> String {
    let alerts = alerts_of(mode.name);
    let why = why_no_alert(mode.name).map(|why| format!("# No rule tells of {}: {why}.\n", mode.name));
    let hidden = match alerts.iter().all(|alert| alert.needs.is_some()) {
        true if !alerts.is_empty() => "# Under Istio's default statistics none: what they rest on is hidden there.\n",
        _ => "",
    };
    format!("{}{hidden}{}", why.unwrap_or_default(), rule_file(&alerts))
}

fn unknown(name: &str) -> CliError {
    let diagnosed = Library::embedded().scenario(name).and_then(Result::ok).and_then(|s| s.expect.diagnosis);
    let hint = match (diagnosed, nearest(name, MODES.iter().map(|mode| mode.name))) {
        (Some(mode), _) => format!("that is a scenario; what must be found in it is `{mode}`"),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => "`rotacheck explain` lists them".to_owned(),
    };
    CliError::with_hint(Exit::Usage, format!("there is no failure mode {name:?}"), hint)
}

pub(super) fn layer(mode: &Mode) -> &'static str {
    mode.layer.map_or("-", |layer| layer.name())
}

fn list(page: &mut Page) {
    let rows = MODES.iter().map(|mode| [mode.name.to_owned(), layer(mode).to_owned(), mode.title.to_owned()]);
    page.table(["MODE", "LAYER", "WHAT IT IS"], &rows.collect::<Vec<_>>());
    page.line("");
    page.paragraph(
        0,
        "The layer is where a new certificate stopped on its way: issued, sent, acked, dumped, loaded, served. A dash is \
         no failure by itself: it is recovered from, or hides another one.",
    );
}

fn explain(page: &mut Page, mode: &Mode) {
    page.heading(mode.name);
    page.paragraph(2, mode.title);
    let blamed = match mode.layer {
        Some(layer) => format!("Layer to blame: {layer}"),
        None => "No layer to blame: no failure by itself, or an overlay on another mode".to_owned(),
    };
    page.paragraph(2, &blamed);
    let sections = [
        ("First aid", mode.first_aid),
        ("What happens", mode.meaning),
        ("Why it matters", mode.why_it_matters),
        ("What tells it apart", mode.evidence),
        ("Lasting fix", mode.lasting_fix),
    ];
    for (heading, text) in sections {
        page.line("");
        page.heading(heading);
        page.paragraph(2, text);
    }
    if !mode.looks_like.is_empty() {
        page.line("");
        page.heading("Looks like, until one more thing is seen");
        for like in mode.looks_like {
            page.item("  - ", &format!("{}: {}", like.mode, like.decided_by));
        }
    }
    if !mode.seen_in.is_empty() {
        page.line("");
        page.heading("Seen in");
        for issue in mode.seen_in {
            page.line(&format!("  {}", url(issue)));
        }
    }
}

/// GitHub leads from an issue's address to a pull request's where it is one.
pub(super) fn url(issue: &str) -> String {
    format!("https://github.com/{}", issue.replacen('#', "/issues/", 1))
}

fn as_json(mode: &Mode) -> BTreeMap<&'static str, serde_json::Value> {
    let likes =
        mode.looks_like.iter().map(|like| serde_json::json!({"mode": like.mode, "decided_by": like.decided_by}));
    BTreeMap::from([
        ("name", mode.name.into()),
        ("number", mode.number.into()),
        ("layer", mode.layer.map(|layer| layer.name()).into()),
        ("title", mode.title.into()),
        ("meaning", mode.meaning.into()),
        ("why_it_matters", mode.why_it_matters.into()),
        ("evidence", mode.evidence.into()),
        ("looks_like", likes.collect()),
        ("first_aid", mode.first_aid.into()),
        ("lasting_fix", mode.lasting_fix.into()),
        ("seen_in", mode.seen_in.iter().map(|issue| url(issue)).collect()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_explained_with_first_aid_first() {
        let mut page = Page::plain(80);
        explain(&mut page, mode("resend-cached").unwrap());
        insta::assert_snapshot!(page.text());
    }

    #[test]
    fn every_line_fits_the_width() {
        let mut page = Page::plain(80);
        list(&mut page);
        for mode in MODES {
            explain(&mut page, mode);
        }
        let long: Vec<&str> = page.text().lines().filter(|line| line.chars().count() > 80).collect();
        // Type URLs can't be broken.
        assert!(long.iter().all(|line| line.contains("type.googleapis.com")), "{long:?}");
    }
}
