//! `dk ci`: test every branch and pull request, and keep the results.

use crate::commands::Session;

mod approve;

/// Run the steps of branches and pull requests, and keep their results
///
/// Results, logs and history are commits in the store. A target is written
/// USER/REPO/heads/NAME, USER/REPO/tags/NAME or USER/REPO/pr/NUMBER.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Approve(approve::Args),
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Approve(args) => approve::run(session, args).await,
    }
}
