//! `dk bridge`: keep a branch and the world outside in step.

use crate::commands::Session;
use crate::model::ObjectId;
use crate::ui::Ui;

mod github;
mod listen;
mod local;
mod state;
mod status;

/// Keep a branch in step with GitHub, or with repositories on this machine
///
/// A bridge runs until it is ended. The branch it keeps says what there is as
/// plain files, for programs to watch.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk -C db.git bridge local me/app:/src/app
  dk -C db.git bridge github -r me/app
  dk -C db.git bridge status")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Local(local::Args),
    Github(Box<github::Args>),
    Status(status::Args),
}

impl Args {
    /// Tells whether it works for many at a time.
    pub fn is_daemon(&self) -> bool {
        matches!(self.command, Command::Github(_))
    }
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Local(args) => local::run(session, args).await,
        Command::Github(args) => github::run(session, *args).await,
        Command::Status(args) => status::run(session, args).await,
    }
}

/// A commit a bridge made, as it is printed.
#[derive(serde::Serialize)]
struct Made {
    commit: String,
}

/// Prints the id of a commit that was made.
fn show(ui: &Ui, commit: &ObjectId) -> anyhow::Result<()> {
    let made = Made {
        commit: commit.to_hex(),
    };
    ui.show(&made, |made, out| writeln!(out, "{}", made.commit))
}
