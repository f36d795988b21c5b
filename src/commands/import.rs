//! `dk import`: a folder or a tar stream in one commit.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::client::Edit;
use crate::commands::parse::BranchPath;
use crate::commands::source::Tree;
use crate::commands::{Session, commit, completions, diff, parse};
use crate::model::{Entry, HashKind, Mode, TreePath};

/// Write a folder or a tar stream in one commit
///
/// Adds and replaces files below PATH; --replace also removes what is not
/// there any more. Symbolic links and the executable bit are kept, empty
/// folders and .git are not, and what is neither file, folder nor link is
/// refused. Whatever goes wrong, a truncated archive included, nothing is
/// changed. Prints the commit.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk import web:site ./public
  tar c site | dk import web -
  dk import --replace --no-empty web:site ./public   make the two equal

JSON:
  {\"commit\"}")]
pub struct Args {
    /// The branch, and where in it
    #[arg(value_name = "BRANCH[:PATH]", value_parser = parse::branch_path(), add = completions::rev_path())]
    to: BranchPath,
    /// What to import; with -: a tar stream on standard input
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// Remove everything else below PATH
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    commit: commit::Flags,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let BranchPath { branch, path } = args.to;
    let tree = Tree::new(args.dir)?;
    let options = args
        .commit
        .options(session, || format!("import {tree}"))
        .await?;
    let before = if args.replace {
        clearing(session, &path).await?
    } else {
        Vec::new()
    };
    let cannot = format!("cannot import {tree}");
    let edits = tree.edits(path, before, session)?;
    let head = session
        .client
        .edit(&branch, edits, options)
        .await
        .context(cannot)?;
    commit::show(session, head)
}

/// Returns the edits that make an empty folder of whatever is at a path.
pub(super) async fn clearing(
    session: &Session,
    path: &TreePath,
) -> anyhow::Result<Vec<Edit<'static>>> {
    let digits = session.client.info().await?.id_digits;
    let hash = if digits == 2 * HashKind::Sha1.id_len() {
        HashKind::Sha1
    } else {
        HashKind::Sha256
    };
    let entry = Entry {
        mode: Mode::DIR,
        id: diff::empty_tree(hash),
    };
    Ok(vec![
        Edit::Set {
            path: path.clone(),
            entry,
        },
        // Marks it as a folder that goes if nothing is put into it.
        Edit::Mkdir { path: path.clone() },
    ])
}
