//! `dk tx resolve`: settle conflicts, with flags or with a menu.

use std::path::PathBuf;

use anyhow::Context as _;

use super::edit;
use crate::client::{Error, FileKind, Side};
use crate::commands::source::Input;
use crate::commands::{Session, blocking, edit as editing, hint, parse};
use crate::model::{Conflict, Entry, EntryKind, Mode, Transaction, TreePath};
use crate::ui::{Exit, Usage};

/// Settle the conflicts of a transaction
///
/// With a flag: settles those at or below the PATHs, all of them if none is
/// given. Without one, on a terminal: asks for each conflict which side to
/// take, or to edit both into one, or to leave it; the status is 3 if any is
/// left. Writing or removing a path settles it too.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tx resolve \"$tx\"                        a menu
  dk tx resolve \"$tx\" --theirs
  dk tx resolve \"$tx\" --ours config docs
  dk tx resolve \"$tx\" --file merged.txt notes.txt")]
pub(super) struct Resolve {
    /// Which conflicts
    #[arg(value_name = "PATH", value_parser = parse::path())]
    paths: Vec<TreePath>,
    #[command(flatten)]
    how: How,
}

/// How to settle; at most one.
#[derive(clap::Args, Debug)]
#[group(multiple = false)]
struct How {
    /// Take what the transaction had
    #[arg(long)]
    ours: bool,
    /// Take what was merged into it
    #[arg(long)]
    theirs: bool,
    /// Take what both come from
    #[arg(long)]
    base: bool,
    /// Take this file (-: standard input); needs exactly one PATH
    #[arg(long, value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
}

impl How {
    fn side(&self) -> Option<Side> {
        match (self.ours, self.theirs, self.base) {
            (true, _, _) => Some(Side::Ours),
            (_, true, _) => Some(Side::Theirs),
            (_, _, true) => Some(Side::Base),
            _ => None,
        }
    }
}

pub(super) async fn run(session: &Session, tx: &Transaction, args: Resolve) -> anyhow::Result<()> {
    let chosen = choose(tx, &args.paths)?;
    if let Some(file) = args.how.file {
        let [path] = args.paths.as_slice() else {
            return Err(Usage::new("--file settles one path: name it").into());
        };
        let input = Input::new(Some(file)).open(session).await?;
        let edits = input.write(path.clone(), false);
        return edit::edit(session, tx, edits, format!("cannot write {path}")).await;
    }
    if chosen.is_empty() {
        session
            .ui
            .note(&format!("{}: nothing is in conflict", tx.id));
        return Ok(());
    }
    if let Some(side) = args.how.side() {
        let paths: Vec<TreePath> = chosen.iter().map(|one| one.path.clone()).collect();
        return settle(session, tx, &paths, side).await;
    }
    if !session.ui.interactive() {
        let message = "cannot ask without a terminal how to settle conflicts";
        let error = Usage::new(message);
        return Err(error
            .hint("use --ours, --theirs, --base or --file FILE")
            .into());
    }
    let mut left = 0;
    for (index, conflict) in chosen.iter().enumerate() {
        let place = format!("({} of {})", index + 1, chosen.len());
        if !ask(session, tx, conflict, &place).await? {
            left += 1;
        }
    }
    if left == 0 {
        return Ok(());
    }
    let plural = if left == 1 { "" } else { "s" };
    let error = Usage::new(format!("{left} conflict{plural} left"));
    Err(Exit::with(3, error.hint("writing or removing a path settles it too")).into())
}

/// Returns the conflicts at or below these paths; all, if there are no paths.
fn choose<'a>(tx: &'a Transaction, paths: &[TreePath]) -> anyhow::Result<Vec<&'a Conflict>> {
    for path in paths {
        if !tx.conflicts.iter().any(|one| one.path.starts_with(path)) {
            let what = format!("a conflict at {path}");
            return Err(Error::NotFound { what }.into());
        }
    }
    let wanted =
        |one: &&Conflict| paths.is_empty() || paths.iter().any(|path| one.path.starts_with(path));
    Ok(tx.conflicts.iter().filter(wanted).collect())
}

async fn settle(
    session: &Session,
    tx: &Transaction,
    paths: &[TreePath],
    side: Side,
) -> anyhow::Result<()> {
    let settled = session.client.tx_resolve(&tx.id, paths, side).await;
    settled.context("cannot settle the conflict")?;
    Ok(())
}

/// What the menu offers.
#[derive(Clone, Copy)]
enum Choice {
    Take(Side),
    Edit,
    Skip,
}

/// Asks about one conflict until it is settled or left; tells which.
async fn ask(
    session: &Session,
    tx: &Transaction,
    conflict: &Conflict,
    place: &str,
) -> anyhow::Result<bool> {
    let side = |name, entry: &Option<Entry>| format!("{name:<7} {}", described(entry));
    let mut choices = vec![
        (Choice::Take(Side::Ours), side("ours", &conflict.ours)),
        (Choice::Take(Side::Theirs), side("theirs", &conflict.theirs)),
        (Choice::Take(Side::Base), side("base", &conflict.base)),
    ];
    if is_file(&conflict.ours) && is_file(&conflict.theirs) {
        let label = "edit    both, with marks where they differ";
        choices.push((Choice::Edit, label.into()));
    }
    choices.push((Choice::Skip, "skip    leave it for now".into()));
    let question = format!("{} {place}: {}", conflict.path, conflict.kind.text());
    loop {
        let labels: Vec<String> = choices.iter().map(|(_, label)| label.clone()).collect();
        let (ui, question) = (session.ui.clone(), question.clone());
        let flags = "--ours, --theirs, --base or --file";
        let chosen = blocking(move || ui.select(&question, &labels, flags)).await?;
        match choices.get(chosen).map(|(choice, _)| *choice) {
            Some(Choice::Take(side)) => {
                settle(session, tx, std::slice::from_ref(&conflict.path), side).await?;
                return Ok(true);
            }
            Some(Choice::Edit) => match by_hand(session, conflict).await {
                Ok(Some(text)) => {
                    let kind = match conflict.ours.map(|entry| entry.mode) {
                        Some(Mode::EXEC) => FileKind::Exec,
                        _ => FileKind::Normal,
                    };
                    let path = conflict.path.clone();
                    let cannot = format!("cannot write {path}");
                    let edits = editing::replace(path, kind, text);
                    edit::edit(session, tx, edits, cannot).await?;
                    return Ok(true);
                }
                Ok(None) => session.ui.line("not settled: marks are left in it"),
                Err(error) => session.ui.error(&error, hint(&error)),
            },
            Some(Choice::Skip) | None => return Ok(false),
        }
    }
}

fn is_file(entry: &Option<Entry>) -> bool {
    entry.is_some_and(|entry| matches!(entry.mode.kind(), EntryKind::File | EntryKind::Exec))
}

fn described(entry: &Option<Entry>) -> &'static str {
    match entry.map(|entry| entry.mode.kind()) {
        None => "nothing there",
        Some(EntryKind::File) => "a file",
        Some(EntryKind::Exec) => "an executable file",
        Some(EntryKind::Link) => "a symbolic link",
        Some(EntryKind::Dir) => "a folder",
        Some(EntryKind::Submodule) => "a submodule",
        Some(EntryKind::Other) => "something odd",
    }
}

/// Lets the user make one file of both sides; `None` while marks are left.
async fn by_hand(session: &Session, conflict: &Conflict) -> anyhow::Result<Option<Vec<u8>>> {
    let (path, mut sides) = (&conflict.path, Vec::new());
    for entry in [conflict.ours, conflict.theirs].iter().flatten() {
        sides.push(editing::content(session, entry, path).await?);
    }
    let [ours, theirs] = sides.as_slice() else {
        return Ok(None);
    };
    let folder = tempfile::Builder::new()
        .prefix("dk-resolve-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let (_, name) = path.split_last().context("the root in conflict")?;
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name);
    let file = folder.path().join(name);
    let cannot = || format!("cannot use {}", file.display());
    std::fs::write(&file, marked(ours, theirs)).with_context(cannot)?;
    editing::editor(&session.ui, &file).await?;
    let text = std::fs::read(&file).with_context(cannot)?;
    Ok(Some(text).filter(|text| !has_marks(text)))
}

const MARKS: [&[u8]; 3] = [b"<<<<<<< ours", b"=======", b">>>>>>> theirs"];

/// Returns both texts as one: what begins and ends alike once, what lies
/// between one after the other, with Git's marks around.
fn marked(ours: &[u8], theirs: &[u8]) -> Vec<u8> {
    let lines = |text| -> Vec<&[u8]> { <[u8]>::split_inclusive(text, |b| *b == b'\n').collect() };
    let (ours, theirs) = (lines(ours), lines(theirs));
    let alike = |(a, b): &(&&[u8], &&[u8])| a == b;
    let head = ours.iter().zip(&theirs).take_while(alike).count();
    let (ours, theirs) = (&ours[head..], (&theirs[..head], &theirs[head..]));
    let (begin, theirs) = theirs;
    let tail = ours.iter().rev().zip(theirs.iter().rev());
    let tail = tail.take_while(alike).count();
    let mut out = begin.concat();
    let mut side = |mark: &[u8], lines: &[&[u8]]| {
        out.extend_from_slice(mark);
        out.push(b'\n');
        for line in lines {
            out.extend_from_slice(line);
        }
        if !out.ends_with(b"\n") {
            out.push(b'\n');
        }
    };
    side(MARKS[0], &ours[..ours.len() - tail]);
    side(MARKS[1], &theirs[..theirs.len() - tail]);
    side(MARKS[2], &theirs[theirs.len() - tail..]);
    out
}

fn has_marks(text: &[u8]) -> bool {
    text.split(|b| *b == b'\n')
        .any(|line| line == MARKS[0] || line == MARKS[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_around_what_differs() {
        let shown = |ours: &str, theirs: &str| {
            String::from_utf8(marked(ours.as_bytes(), theirs.as_bytes())).unwrap()
        };
        assert_eq!(
            shown("a\nb\nc\n", "a\nx\ny\nc\n"),
            "a\n<<<<<<< ours\nb\n=======\nx\ny\n>>>>>>> theirs\nc\n"
        );
        assert_eq!(shown("a", ""), "<<<<<<< ours\na\n=======\n>>>>>>> theirs\n");
        // A line that is at both ends is counted once.
        assert_eq!(
            shown("a\n", "a\na\n"),
            "a\n<<<<<<< ours\n=======\na\n>>>>>>> theirs\n"
        );
        assert!(has_marks(&marked(b"a", b"b")));
        assert!(!has_marks(b"=======\n<<<<<<< other\n"));
    }
}
