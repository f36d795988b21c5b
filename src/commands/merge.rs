//! `dk merge`: merge a commit into a branch.

use std::ffi::OsString;

use anyhow::Context as _;
use serde::Serialize;

use crate::client::{At, CommitOptions, Error, MergeOptions, Merged, Side};
use crate::commands::{Session, commit, completions, diff, parse};
use crate::model::{BranchName, ConflictKind, Rev, TreePath};
use crate::ui::{Exit, Usage};

/// Merge a commit into a branch
///
/// Three-way, file by file: a file changed on both sides is a conflict. Where
/// the branch has nothing of its own it moves forward without a merge commit.
/// Prints the new head. Conflicts are printed one a line, the path, a tab and
/// the reason; the branch stays as it was, and the status is 3.
///
/// With --dry-run: prints what would change as `dk diff` does, and conflicts
/// after an exclamation mark.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk merge master feature/a
  dk merge --dry-run master feature/a && dk merge master feature/a
  dk merge --theirs config upstream -m 'upstream knows better'

To settle conflicts one by one: dk tx begin, dk tx merge, dk tx resolve.

JSON:
  {\"commit\"}
  a conflict: {\"path\", \"kind\": \"file-vs-dir\"|\"changed-both\"|\"add-add\"|\"add-del\"}
  a change: as of dk diff")]
pub struct Args {
    /// The branch that changes
    #[arg(value_parser = parse::branch(), add = completions::branch())]
    branch: BranchName,
    /// What to merge into it
    #[arg(value_parser = parse::rev(), add = completions::rev())]
    rev: Rev,
    /// The message of the merge commit
    #[arg(short, long, value_name = "MSG")]
    message: Option<OsString>,
    /// Settle every conflict with the branch's side
    #[arg(long, conflicts_with = "theirs")]
    ours: bool,
    /// Settle every conflict with the side of REV
    #[arg(long)]
    theirs: bool,
    /// Change nothing: print what would come of it
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    guard: commit::Guard,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let Args { branch, rev, .. } = args;
    let theirs = session.resolve(&rev).await?;
    let message = args
        .message
        .unwrap_or_else(|| format!("Merge {rev} into {branch}").into());
    let favour = match (args.ours, args.theirs) {
        (true, _) => Some(Side::Ours),
        (_, true) => Some(Side::Theirs),
        _ => None,
    };
    let options = MergeOptions {
        commit: CommitOptions {
            message: Some(commit::in_full(message)),
            author: Some(session.signature().await?),
            expect: args.guard.expect.unwrap_or_default(),
            force: args.guard.force,
            ..CommitOptions::default()
        },
        favour,
        dry_run: args.dry_run,
    };
    let cannot = || format!("cannot merge {rev} into {branch}");
    match session.client.merge(&branch, &theirs, options).await {
        Ok(merged) if args.dry_run => would(session, &merged).await.with_context(cannot),
        Ok(merged) => match merged.head {
            Some(head) => commit::show(session, head),
            None => anyhow::bail!("{branch} has no commit after the merge"),
        },
        Err(Error::Conflict { paths, kinds }) => {
            show_conflicts(session, paths.iter().zip(kinds), "")?;
            let plural = if paths.len() == 1 { "" } else { "s" };
            let message = format!("{}: {} path{plural} in conflict", cannot(), paths.len());
            let hint = "use --ours or --theirs, or settle them one by one with dk tx merge";
            Err(Exit::with(3, Usage::new(message).hint(hint)).into())
        }
        Err(error) => Err(error).with_context(cannot),
    }
}

/// Prints conflicts: the path, a tab, the reason.
pub(super) fn show_conflicts<'a>(
    session: &Session,
    conflicts: impl Iterator<Item = (&'a TreePath, ConflictKind)>,
    mark: &str,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Record<'a> {
        path: &'a TreePath,
        kind: ConflictKind,
    }
    let mut records = session.ui.records();
    for (path, kind) in conflicts {
        records.show(&Record { path, kind }, |record, out| {
            writeln!(out, "{mark}{}\t{}", record.path, record.kind.text())
        })?;
    }
    records.finish()
}

/// Prints what a merge would change, and its conflicts.
async fn would(session: &Session, merged: &Merged) -> anyhow::Result<()> {
    let (tree, root) = (At::Tree(merged.tree), TreePath::root());
    let head = match merged.head {
        Some(head) => At::Commit(head),
        None => At::Tree(diff::empty_tree(merged.tree.hash_kind())),
    };
    let changes = session.client.diff(&head, &tree, &root).await?;
    let conflicts = &merged.conflicts;
    let mut records = session.ui.records();
    for change in &changes {
        if !conflicts.iter().any(|found| found.path == change.path) {
            records.show(change, |change, out| writeln!(out, "{change}"))?;
        }
    }
    records.finish()?;
    if conflicts.is_empty() {
        return Ok(());
    }
    let found = conflicts.iter().map(|found| (&found.path, found.kind));
    show_conflicts(session, found, "! ")?;
    let (paths, kinds) = conflicts
        .iter()
        .map(|found| (found.path.clone(), found.kind))
        .unzip();
    Err(Error::Conflict { paths, kinds }.into())
}
