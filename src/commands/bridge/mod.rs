//! `dk bridge`: keep a branch and the world outside in step.

use crate::commands::Session;

mod local;

/// Keep a branch in step with repositories on this machine
///
/// A bridge runs until it is ended. The branch it keeps says what there is as
/// plain files, for programs to watch.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk -C db.git bridge local me/app:/src/app
  dk -C tcp://db bridge local me/app:/src/app me/lib:/src/lib --tags")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Local(local::Args),
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Local(args) => local::run(session, args).await,
    }
}
