//! `dk put`: one file, one commit.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::commands::parse::BranchPath;
use crate::commands::source::Input;
use crate::commands::{Session, commit, completions, parse};
use crate::ui::Usage;

/// Write one file in one commit
///
/// Replaces or creates the file, makes the folders above it, and prints the
/// commit. A branch that does not exist is born. Another writer who is faster
/// loses nothing: the file is written on top of what it left.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  date | dk put master:now
  dk put -x master:bin/run run.sh -m 'the new runner'
  dk put --expect \"$head\" master:config config.json   only if nobody was faster

JSON:
  {\"commit\"}")]
pub struct Args {
    /// The branch, and where in it
    #[arg(value_name = "BRANCH:PATH", value_parser = parse::branch_path(), add = completions::rev_path())]
    to: BranchPath,
    /// What to write; without it or with -: standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Make it executable (a FILE that is executable stays so)
    #[arg(short = 'x', long)]
    exec: bool,
    #[command(flatten)]
    commit: commit::Flags,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let BranchPath { branch, path } = args.to;
    if path.is_root() {
        let error = Usage::new(format!("no path given: which file of {branch}?"));
        return Err(error.hint("write it as BRANCH:PATH").into());
    }
    let options = args
        .commit
        .options(session, || format!("put {path}"))
        .await?;
    let input = Input::new(args.file).open(session).await?;
    let cannot = format!("cannot write {branch}:{path}");
    let head = session
        .client
        .edit(&branch, input.write(path, args.exec), options)
        .await
        .context(cannot)?;
    commit::show(session, head)
}
