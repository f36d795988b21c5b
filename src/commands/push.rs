//! `dk push`: send commits to another repository.

use anyhow::Context as _;

use crate::commands::{Session, completions};

/// Push to another repository
///
/// Runs the git program, whose output appears on standard error.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk push origin master
  dk push ssh://git@example.org/a.git 'refs/heads/*:refs/heads/*'
  dk push origin :old                       delete a branch there")]
pub struct Args {
    /// A URL, a path, or the name of a remote
    #[arg(add = completions::remote())]
    remote: String,
    /// What to push, and where to: SRC or [+]SRC:DST
    refspec: Vec<String>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    session
        .client
        .push(&args.remote, &args.refspec, session.ui.progress())
        .await
        .with_context(|| format!("cannot push to {}", args.remote))
}
