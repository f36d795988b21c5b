//! `dk stat`: what stands at a path.

use crate::client::{At, Error};
use crate::commands::{Session, completions, parse};
use crate::model::{Entry, RevPath, TreePath};
use crate::ui::Look;

/// Show kind, mode, size and id of a path
///
/// Prints one line a path: kind, mode, size, id, and after a tab the path. The
/// size is in bytes; of a folder it is the number of its entries.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk stat master:README.md
  dk stat --json master:src | jq -r .id

JSON:
  {\"path\", \"kind\": \"file\"|\"exec\"|\"link\"|\"dir\"|\"submodule\"|\"other\", \"mode\", \"id\", \"size\"}")]
pub struct Args {
    /// A revision, and a path in it
    #[arg(value_name = "REV[:PATH]", required = true, value_parser = parse::rev_path(),
          add = completions::rev_or_path())]
    paths: Vec<RevPath>,
}

/// What is printed.
#[derive(serde::Serialize)]
struct Record<'a> {
    path: &'a TreePath,
    #[serde(flatten)]
    entry: Entry,
    size: u64,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let paint = session.ui.paint;
    for wanted in &args.paths {
        let at = At::Commit(session.resolve(&wanted.rev).await?);
        let stat = session.client.stat(&at, &wanted.path).await?;
        let stat = stat.ok_or_else(|| Error::NotFound {
            what: wanted.to_string(),
        })?;
        let record = Record {
            path: &wanted.path,
            entry: stat.entry,
            size: stat.size,
        };
        session.ui.show(&record, |record, out| {
            let Record { path, entry, size } = record;
            let (kind, mode) = (entry.mode.kind().name(), entry.mode.0);
            let id = paint.of(Look::Faint, entry.id);
            writeln!(out, "{kind} {mode:06o} {size} {id}\t{path}")
        })?;
    }
    Ok(())
}
