//! `dk ls`: what is in a folder.

use std::io::Write;

use crate::client::{At, Error};
use crate::commands::{Session, completions, named, parse};
use crate::model::{Entry, EntryKind, Item, Kind, RevPath, TreePath};
use crate::ui::{Look, Paint, write_path};

/// List the entries of a folder
///
/// Prints one name a line, in Git's order. A name that holds control
/// characters, quotes or bytes that are not UTF-8 is quoted as Git does.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ls master
  dk ls -rz master:src | xargs -0 -n1 echo
  dk ls -l v1~3:etc

JSON:
  {\"path\", \"kind\": \"file\"|\"exec\"|\"link\"|\"dir\"|\"submodule\"|\"other\", \"mode\", \"id\", \"size\"}
  size is null unless -l is given and the entry has content")]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// A revision, and a folder in it
    #[arg(value_name = "REV[:PATH]", value_parser = parse::rev_path(), add = completions::rev_or_path())]
    at: RevPath,
}

/// How to list.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Options {
    /// List every file below the folder instead, by its path from there
    #[arg(short, long)]
    recursive: bool,
    /// Show kind, size and id before each name
    #[arg(short, long)]
    long: bool,
    /// End names with NUL and do not quote them
    #[arg(short = 'z', long = "null", visible_short_alias = '0')]
    nul: bool,
}

/// One entry, for JSON.
#[derive(serde::Serialize)]
pub(super) struct Listed<'a> {
    pub path: &'a TreePath,
    #[serde(flatten)]
    pub entry: &'a Entry,
    pub size: Option<u64>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let at = At::Commit(session.resolve(&args.at.rev).await?);
    let listed = list(session, &at, &args.at.path, args.options).await;
    listed.map_err(|error| named(error, &args.at))
}

/// Lists a folder of any tree; for a file, that file.
pub(super) async fn list(
    session: &Session,
    at: &At,
    path: &TreePath,
    options: Options,
) -> anyhow::Result<()> {
    let mut records = session.ui.records();
    let paint = session.ui.paint;
    let show = |records: &mut crate::ui::Records, item: &Item| {
        // The path of a leaf, seen from itself, is empty.
        let name = if item.path.is_root() {
            path
        } else {
            &item.path
        };
        let listed = Listed {
            path: name,
            entry: &item.entry,
            size: item.size,
        };
        records.show(&listed, |listed, out| line(listed, options, paint, out))
    };
    if options.recursive {
        let mut items = session.client.walk(at, path, options.long);
        while let Some(item) = records.next(&mut items).await? {
            show(&mut records, &item?)?;
        }
        return records.finish();
    }
    let items = match session.client.list(at, path, options.long).await {
        Err(error) if error.kind() == Kind::NotDirectory => leaf(session, at, path).await?,
        items => items?,
    };
    for item in &items {
        show(&mut records, item)?;
    }
    records.finish()
}

/// Returns the file at a path, as a listing of itself.
async fn leaf(session: &Session, at: &At, path: &TreePath) -> anyhow::Result<Vec<Item>> {
    let stat = session.client.stat(at, path).await?;
    let stat = stat.ok_or_else(|| Error::NotFound {
        what: path.to_string(),
    })?;
    Ok(vec![Item {
        path: TreePath::root(),
        entry: stat.entry,
        size: stat.entry.mode.is_blob().then_some(stat.size),
    }])
}

fn line(
    listed: &Listed<'_>,
    options: Options,
    paint: Paint,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let kind = listed.entry.mode.kind();
    if options.long {
        let size = listed
            .size
            .map_or_else(|| "-".into(), |size| size.to_string());
        let id = paint.of(Look::Faint, &listed.entry.id);
        write!(out, "{:<9} {size:>9} {id}\t", kind.name())?;
    }
    if options.nul || paint == Paint::NONE {
        return write_path(out, listed.path, options.nul);
    }
    writeln!(out, "{}", painted(paint, kind, listed.path))
}

/// Returns a name in the colour of its kind.
pub(super) fn painted(paint: Paint, kind: EntryKind, name: &TreePath) -> String {
    match kind {
        EntryKind::Dir => paint.of(Look::Dir, name).to_string(),
        EntryKind::Exec => paint.of(Look::Exec, name).to_string(),
        EntryKind::Link => paint.of(Look::Link, name).to_string(),
        EntryKind::File | EntryKind::Submodule | EntryKind::Other => name.to_string(),
    }
}
