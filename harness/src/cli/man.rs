//! `rotacheck man`.

use std::io::Write as _;

use camino::Utf8PathBuf;

use super::{CliError, Exit};

/// Arguments of `rotacheck man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page per subcommand into this directory, instead of a single page to stdout.
    #[arg(long, value_name = "DIR")]
    dir: Option<Utf8PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<Exit, CliError> {
    let cannot = |what: &str, e: std::io::Error| CliError::new(Exit::CouldNotTell, format!("cannot write {what}: {e}"));
    let command = command();
    if let Some(dir) = args.dir {
        std::fs::create_dir_all(&dir).map_err(|e| cannot(dir.as_str(), e))?;
        clap_mangen::generate_to(command, &dir).map_err(|e| cannot(dir.as_str(), e))?;
        return Ok(Exit::AsExpected);
    }
    let page = page(command).map_err(|e| cannot("the page", e))?;
    std::io::stdout().write_all(&page).map_err(|e| cannot("to stdout", e))?;
    Ok(Exit::AsExpected)
}

/// The command line as the pages show it.
pub(super) fn command() -> clap::Command {
    super::command().disable_help_subcommand(true)
}

/// One page that holds everything: the program, then each subcommand with its options.
pub(super) fn page(mut command: clap::Command) -> std::io::Result<Vec<u8>> {
    command.build();
    let mut page = Vec::new();
    let main = clap_mangen::Man::new(command.clone());
    main.render(&mut page)?;
    for subcommand in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = subcommand.get_name().to_uppercase();
        writeln!(page, ".SH \"ROTACHECK {name}\"")?;
        let man = clap_mangen::Man::new(subcommand.clone());
        let mut parts = Vec::new();
        man.render_synopsis_section(&mut parts)?;
        man.render_description_section(&mut parts)?;
        if subcommand.get_arguments().next().is_some() {
            man.render_options_section(&mut parts)?;
        }
        // Their sections become subsections of this one.
        page.extend(String::from_utf8_lossy(&parts).replace(".SH ", ".SS ").bytes());
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_subcommand_and_nothing_internal() {
        let page = String::from_utf8(page(super::super::command()).unwrap()).unwrap();
        for subcommand in super::super::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            assert!(page.contains(&format!(".SH \"ROTACHECK {}\"", subcommand.get_name().to_uppercase())));
        }
        assert!(page.contains("offline"));
        assert!(!page.contains("guard"));
    }
}
