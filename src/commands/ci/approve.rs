//! `dk ci approve`: let a fork's pull request run.

use std::io::{self, Write};

use crate::ci::{Target, request};
use crate::commands::Session;
use crate::model::ObjectId;
use crate::ui::Usage;

/// Let a pull request of a fork run, at one commit
///
/// What runs is the author's program, with the rights of the engine's user.
/// Look at the commit first. It holds for this commit only: a new one needs to
/// be looked at again. Prints the commit that says who approved it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci approve me/app/pr/7 --commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904

JSON:
  {\"commit\"}")]
pub struct Args {
    /// The pull request: USER/REPO/pr/NUMBER
    target: Target,
    /// The commit that was looked at, in full
    #[arg(long, value_name = "SHA")]
    commit: String,
}

#[derive(serde::Serialize)]
struct Made {
    commit: String,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let Some(sha) = ObjectId::from_hex(args.commit.as_bytes()) else {
        return Err(Usage::new(format!("{:?} is not a commit's full id", args.commit)).into());
    };
    let by = session.signature().await?;
    let made = request::approve(&*session.client, &args.target, &sha, Some(by)).await?;
    let commit = made.to_hex();
    session.ui.show(&Made { commit }, render)
}

fn render(made: &Made, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", made.commit)
}
