//! `dk rm`: remove files and folders in one commit.

use anyhow::Context as _;

use crate::client::Edit;
use crate::commands::parse::BranchPath;
use crate::commands::{Session, commit, completions, parse, source};
use crate::model::TreePath;
use crate::ui::Usage;

/// Remove files and folders in one commit
///
/// A folder goes with all below it. All paths are of one branch; if one does
/// not exist nothing is removed. Prints the commit.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk rm master:old/notes
  dk rm master:a master:b -m 'tidy up'
  dk ls -rz master:tmp | xargs -0 -I{} echo master:tmp/{} | xargs dk rm

JSON:
  {\"commit\"}")]
pub struct Args {
    /// The branch, and what to remove of it
    #[arg(value_name = "BRANCH:PATH", required = true, value_parser = parse::branch_path(), add = completions::rev_path())]
    paths: Vec<BranchPath>,
    #[command(flatten)]
    commit: commit::Flags,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let branch = args.paths[0].branch.clone();
    let mut paths: Vec<TreePath> = Vec::with_capacity(args.paths.len());
    for at in args.paths {
        if at.branch != branch {
            let other = at.branch;
            return Err(Usage::new(format!(
                "one commit changes one branch, not both {branch} and {other}"
            ))
            .into());
        }
        if at.path.is_root() {
            let error = Usage::new(format!("no path given: what of {branch}?"));
            return Err(error
                .hint("write it as BRANCH:PATH; 'dk branch delete' removes a branch")
                .into());
        }
        paths.push(at.path);
    }
    let message = || {
        let names = paths.iter().map(TreePath::as_bytes);
        format!("rm {}", commit::named(names))
    };
    let options = args.commit.options(session, message).await?;
    let edits = paths
        .into_iter()
        .map(|path| Edit::Remove { path })
        .collect();
    let head = session
        .client
        .edit(&branch, source::edits(edits), options)
        .await
        .with_context(|| format!("cannot remove from {branch}"))?;
    commit::show(session, head)
}
