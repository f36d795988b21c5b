//! `dk tree`: a tree, drawn.

use std::num::NonZeroUsize;

use crate::client::At;
use crate::commands::ls::{Listed, painted};
use crate::commands::{Session, completions, named, parse};
use crate::model::{Item, RevPath, TreePath};
use crate::ui::Look;

/// Draw a tree
///
/// Prints the folder and, indented below it, everything in it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk tree master
  dk tree -L 2 master:src

JSON:
  {\"path\", \"kind\", \"mode\", \"id\", \"size\": null}
  one object an entry, folders included, with its path from the folder drawn")]
pub struct Args {
    /// Go down only so many levels
    #[arg(short = 'L', long, value_name = "LEVELS")]
    depth: Option<NonZeroUsize>,
    /// A revision, and a folder in it
    #[arg(value_name = "REV[:PATH]", value_parser = parse::rev_path(), add = completions::rev_or_path())]
    at: RevPath,
}

/// A folder under way: what is left of it.
struct Level {
    path: TreePath,
    rest: std::vec::IntoIter<Item>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let at = At::Commit(session.resolve(&args.at.rev).await?);
    let top = &args.at.path;
    let depth = args.depth.map_or(usize::MAX, NonZeroUsize::get);
    let paint = session.ui.paint;
    let items = session.client.list(&at, top, false).await;
    let items = items.map_err(|error| named(error.into(), &args.at))?;
    let mut levels = vec![Level {
        path: TreePath::root(),
        rest: items.into_iter(),
    }];
    let mut records = session.ui.records();
    if !session.ui.json {
        let title = if top.is_root() {
            args.at.rev.to_string()
        } else {
            args.at.to_string()
        };
        records.text(|out| writeln!(out, "{}", paint.of(Look::Strong, title)))?;
    }
    while let Some(level) = levels.last_mut() {
        let Some(item) = level.rest.next() else {
            levels.pop();
            continue;
        };
        let path = level.path.append(&item.path);
        let record = Listed {
            path: &path,
            entry: &item.entry,
            size: None,
        };
        records.show(&record, |record, out| {
            let (last, above) = levels.split_last().expect("the level of this item");
            for level in above {
                let more = !level.rest.as_slice().is_empty();
                write!(out, "{}", if more { "│   " } else { "    " })?;
            }
            let more = !last.rest.as_slice().is_empty();
            write!(out, "{}", if more { "├── " } else { "└── " })?;
            let name = painted(paint, record.entry.mode.kind(), &item.path);
            writeln!(out, "{name}")
        })?;
        if item.entry.mode.is_dir() && levels.len() < depth {
            let items = session.client.list(&at, &top.append(&path), false).await?;
            levels.push(Level {
                path,
                rest: items.into_iter(),
            });
        }
    }
    records.finish()
}
