//! `dk ci`: test every branch and pull request, and keep the results.

use crate::commands::{Global, Session};
use crate::ui::Ui;

mod approve;
mod cancel;
mod check;
mod graph;
mod health;
mod history;
mod life;
mod log;
mod page;
mod rebuild;
mod run;
mod serve;
mod source;
mod status;
mod supervise;
mod user;
mod which;
mod why;
mod work;

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
    Serve(serve::Args),
    Check(check::Args),
    Run(run::Args),
    Status(status::Args),
    History(history::Args),
    Graph(graph::Args),
    Log(log::Args),
    Rebuild(rebuild::Args),
    Cancel(cancel::Args),
    Why(why::Args),
    Approve(approve::Args),
    User(user::Args),
    #[command(hide = true)]
    Supervise(supervise::Args),
}

impl Args {
    /// Tells whether it goes on for long and works for many at a time.
    pub fn is_daemon(&self) -> bool {
        matches!(self.command, Command::Serve(_) | Command::Run(_))
    }

    /// Tells whether it needs no store, or finds its own.
    pub fn is_alone(&self) -> bool {
        matches!(
            self.command,
            Command::Check(_) | Command::Run(_) | Command::Supervise(_) | Command::User(_)
        )
    }
}

/// Runs a command that needs no store.
pub(super) async fn alone(ui: &Ui, global: &Global, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Check(args) => check::run(ui, &args),
        Command::Run(args) => run::run(ui, global, args).await,
        Command::Supervise(args) => supervise::run(args).await,
        Command::User(args) => user::run(ui, args).await,
        _ => Ok(()),
    }
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Serve(args) => serve::run(session, args).await,
        Command::Rebuild(args) => rebuild::run(session, args).await,
        Command::Cancel(args) => cancel::run(session, args).await,
        Command::Why(args) => why::run(session, args).await,
        Command::Approve(args) => approve::run(session, args).await,
        Command::Status(args) => status::run(session, args).await,
        Command::History(args) => history::run(session, args).await,
        Command::Graph(args) => graph::run(session, args).await,
        Command::Log(args) => log::run(session, args).await,
        Command::Check(_) | Command::Run(_) | Command::Supervise(_) | Command::User(_) => Ok(()),
    }
}
