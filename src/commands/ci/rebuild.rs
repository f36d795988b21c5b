//! `dk ci rebuild`: have results built again.

use std::io::{self, Write};

use crate::ci::request::{self, Chosen};
use crate::commands::Session;
use crate::commands::ci::which::{Which, written};
use crate::model::BranchName;
use crate::ui::Usage;

/// Have results built again
///
/// Results are kept until somebody asks for others, failures too. One that is
/// being built just now is left alone. The engine may run anywhere, and later.
/// Prints the branch of each result.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci rebuild me/app/heads/master
  dk ci rebuild me/app/pr/7:test
  dk ci rebuild --failed
  dk ci rebuild --commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904

JSON:
  {\"branch\"}")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Only those that failed
    #[arg(long)]
    failed: bool,
    /// All targets that were tested at this commit
    #[arg(long, value_name = "SHA", conflicts_with = "target")]
    commit: Option<String>,
}

#[derive(serde::Serialize)]
struct Asked {
    branch: String,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    if args.which.target.is_none() && args.commit.is_none() && !args.failed {
        let refused = Usage::new("name a target, or say --failed or --commit");
        return Err(refused.into());
    }
    let (which, step) = args.which.chosen(args.commit);
    let chosen = Chosen {
        which,
        step,
        failed: args.failed,
    };
    let by = session.signature().await?;
    let metadata = &args.which.metadata_branch;
    let asked = request::rebuild(&*session.client, metadata, &chosen, Some(by)).await?;
    show(session, &asked)
}

/// Prints branches.
pub(super) fn show(session: &Session, branches: &[BranchName]) -> anyhow::Result<()> {
    let mut records = session.ui.records();
    for branch in branches {
        let branch = written(branch);
        records.show(&Asked { branch }, render)?;
    }
    records.finish()
}

fn render(asked: &Asked, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", asked.branch)
}
