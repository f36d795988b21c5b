//! `dk man` and `dk help`: the man pages, made from the one definition.
//!
//! A page is what clap knows of a command, then the sections of its
//! `after_help`, and in dk(1) those of [`sections`]. Both are written in the
//! same small markup: `Heading:` on a line of its own begins a section, lines
//! that begin with two blanks are shown as they are, or are a tag and its
//! meaning where a tab divides them, and everything else is text.

use std::io::{self, Write as _};
use std::process::Command as Process;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::commands::{Cli, blocking, hold_interrupts};
use crate::ui::{Ui, Usage};

mod sections;

/// Show a man page
///
/// On a terminal it is shown as man(1) does; otherwise its source is printed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk man
  dk man tx commit
  dk man diff > dk-diff.1")]
pub struct Args {
    /// Print the names of all pages instead
    #[arg(long)]
    list: bool,
    /// A command (tx commit, or dk-tx-commit); without it dk(1)
    page: Vec<String>,
}

/// Show how dk or a command is used
#[derive(clap::Args, Debug)]
pub struct HelpArgs {
    /// The command: tx commit, say
    command: Vec<String>,
}

pub(super) async fn run(ui: &Ui, args: Args) -> anyhow::Result<()> {
    if args.list {
        let mut records = ui.records();
        for (name, _) in pages() {
            let page = Page { name: &name };
            records.show(&page, |page, out| writeln!(out, "{}", page.name))?;
        }
        return records.finish();
    }
    let (name, command) = find(&args.page)?;
    let text = page(&command)?;
    if ui.is_terminal() && view(&name, &text).await? {
        return Ok(());
    }
    Ok(ui.stdout().write_all(&text)?)
}

pub(super) async fn help(ui: &Ui, args: HelpArgs) -> anyhow::Result<()> {
    let (name, mut command) = find(&args.command)?;
    if !args.command.is_empty() && ui.is_terminal() && view(&name, &page(&command)?).await? {
        return Ok(());
    }
    let text = command.render_long_help().to_string();
    Ok(ui.stdout().write_all(text.as_bytes())?)
}

/// A page's name, for JSON.
#[derive(serde::Serialize)]
struct Page<'a> {
    name: &'a str,
}

/// Returns every command with the name of its page, parents first.
fn pages() -> Vec<(String, Command)> {
    fn add(command: &Command, found: &mut Vec<(String, Command)>) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        found.push((name.into(), command.clone()));
        for child in command
            .get_subcommands()
            .filter(|child| !child.is_hide_set())
        {
            add(child, found);
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut found = Vec::new();
    add(&root, &mut found);
    found
}

fn find(words: &[String]) -> anyhow::Result<(String, Command)> {
    let wanted = words.join("-").replace(' ', "-");
    let wanted = wanted.strip_prefix("dk-").unwrap_or(&wanted);
    let full = match wanted {
        "" | "dk" => "dk".to_string(),
        wanted => format!("dk-{wanted}"),
    };
    let page = pages().into_iter().find(|(name, _)| *name == full);
    page.ok_or_else(|| {
        Usage::new(format!("there is no command {}", words.join(" ")))
            .hint("'dk man --list' names all pages")
            .into()
    })
}

/// Shows a page with man(1). Returns false where there is no such program.
async fn view(name: &str, text: &[u8]) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = folder.path().join(format!("{name}.1"));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    // The pager decides itself what Ctrl-C means.
    let _held = hold_interrupts();
    let ended = blocking(move || match Process::new("man").arg(&path).status() {
        Ok(status) => Ok(status.success()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("cannot run man"),
    });
    ended.await
}

/// Returns the source of a page.
fn page(command: &Command) -> anyhow::Result<Vec<u8>> {
    let root = command.get_name() == "dk";
    let mut command = command.clone();
    if !root {
        // They are in dk(1).
        command = command.mut_args(|arg| match arg.is_global_set() {
            true => arg.hide(true),
            false => arg,
        });
    }
    let extra = command.get_after_help().map(ToString::to_string);
    let parents = command.has_subcommands();
    let man = Man::new(command)
        .source(concat!("dk ", env!("CARGO_PKG_VERSION")))
        .manual("dk manual");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if parents {
        man.render_subcommands_section(&mut out)?;
    }
    let mut roff = Roff::new();
    if root {
        write(&mut roff, sections::DK);
    }
    write(&mut roff, &extra.unwrap_or_default());
    if !root {
        write(&mut roff, sections::OTHERS);
    }
    roff.to_writer(&mut out)?;
    Ok(out)
}

/// Turns the markup above into the source of a page.
fn write(roff: &mut Roff, text: &str) {
    let mut literal = false;
    for line in text.lines() {
        let indented = line.strip_prefix("  ");
        let shown = indented.filter(|line| !line.contains('\t'));
        if literal && shown.is_none() {
            roff.control("fi", []);
            roff.control("RE", []);
        }
        if !literal && shown.is_some() {
            roff.control("PP", []);
            roff.control("RS", ["4"]);
            roff.control("nf", []);
        }
        literal = shown.is_some();
        if let Some(line) = shown {
            roff.text([roman(line)]);
        } else if let Some((tag, meaning)) = indented.and_then(|line| line.split_once('\t')) {
            roff.control("TP", []);
            roff.text([bold(tag)]);
            roff.text([roman(meaning)]);
        } else if let Some(heading) = line.strip_suffix(':').filter(|line| is_heading(line)) {
            roff.control("SH", [heading.to_uppercase().as_str()]);
        } else if line.is_empty() {
            roff.control("PP", []);
        } else {
            roff.text([roman(line)]);
        }
    }
    if literal {
        roff.control("fi", []);
        roff.control("RE", []);
    }
}

/// A heading is a word or three, the first with a capital.
fn is_heading(line: &str) -> bool {
    line.starts_with(|c: char| c.is_ascii_uppercase())
        && line.split(' ').count() <= 3
        && line.chars().all(|c| c.is_ascii_alphabetic() || c == ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_markup_becomes_roff() {
        let mut roff = Roff::new();
        write(
            &mut roff,
            "Examples:\n  dk ls\n\nText.\n  0\tdone\nJSON:\n  {\"a\"}\n",
        );
        let text = roff.to_roff();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                ".SH EXAMPLES",
                ".PP",
                ".RS 4",
                ".nf",
                "dk ls",
                ".fi",
                ".RE",
                ".PP",
                "Text.",
                ".TP",
                "\\fB0\\fR",
                "done",
                ".SH JSON",
                ".PP",
                ".RS 4",
                ".nf",
                "{\"a\"}",
                ".fi",
                ".RE",
            ]
        );
    }

    #[test]
    fn pages_are_found_by_any_of_their_names() {
        for words in [
            &["branch", "reset"][..],
            &["branch-reset"],
            &["dk-branch-reset"],
            &["branch reset"],
        ] {
            let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            assert_eq!(find(&words).expect("a page").0, "dk-branch-reset");
        }
        assert_eq!(find(&[]).expect("a page").0, "dk");
        assert!(find(&["nonsense".into()]).is_err());
    }
}
