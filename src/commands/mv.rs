//! `dk mv`: move a file or a folder in one commit.

use anyhow::Context as _;

use crate::client::{At, Edit};
use crate::commands::parse::BranchPath;
use crate::commands::{Session, commit, completions, parse, source};
use crate::model::TreePath;
use crate::ui::Usage;

/// Move or rename a file or a folder in one commit
///
/// Where NEW is a folder, OLD is moved into it; where it is a file, that file
/// is replaced. Prints the commit.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk mv master:draft.txt final.txt
  dk mv master:src/a.c lib/ -m 'a.c belongs to the library'

JSON:
  {\"commit\"}")]
pub struct Args {
    /// The branch, and what to move
    #[arg(value_name = "BRANCH:OLD", value_parser = parse::branch_path(), add = completions::rev_path())]
    from: BranchPath,
    /// Its new path in the same branch
    #[arg(value_name = "NEW", value_parser = parse::path())]
    to: TreePath,
    #[command(flatten)]
    commit: commit::Flags,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let BranchPath { branch, path: from } = args.from;
    if from.is_root() {
        let error = Usage::new(format!("no path given: what of {branch}?"));
        return Err(error
            .hint("write it as BRANCH:OLD; 'dk branch rename' renames a branch")
            .into());
    }
    let at = session.client.head(&branch).await?.map(At::Commit);
    let to = target(session, at.as_ref(), &from, args.to).await?;
    let options = args
        .commit
        .options(session, || format!("mv {from} {to}"))
        .await?;
    let cannot = format!("cannot move {branch}:{from} to {to}");
    let edits = source::edits(vec![Edit::Rename { from, to }]);
    let head = session
        .client
        .edit(&branch, edits, options)
        .await
        .context(cannot)?;
    commit::show(session, head)
}

/// Returns where `from` goes: `to`, or where that is a folder, into it.
pub(super) async fn target(
    session: &Session,
    at: Option<&At>,
    from: &TreePath,
    to: TreePath,
) -> anyhow::Result<TreePath> {
    let Some((_, name)) = from.split_last() else {
        return Err(Usage::new("the root cannot be moved").into());
    };
    let is_folder = match at {
        _ if to.is_root() => true,
        Some(at) => session
            .client
            .stat(at, &to)
            .await?
            .is_some_and(|stat| stat.entry.mode.is_dir()),
        None => false,
    };
    Ok(if is_folder { to.join(name) } else { to })
}
