//! `dk show`: one commit and what it changed.

use crate::commands::{Session, completions, diff, log, parse};
use crate::model::Rev;

/// Show a commit and what it changed
///
/// The changes are those against the first parent.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk show master
  dk show -p master~2

JSON:
  {\"id\", \"tree\", \"parents\", \"author\", \"committer\", \"message\", \"changes\"}
  where author and committer are {\"name\", \"email\", \"time\": seconds, \"offset\": minutes}
  and changes a list of what dk diff prints")]
pub struct Args {
    #[command(flatten)]
    options: diff::Options,
    /// The commits to show
    #[arg(value_name = "REV", required = true, value_parser = parse::rev(), add = completions::rev())]
    revs: Vec<Rev>,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let mut records = session.ui.records();
    let mut style = log::Style::full(args.options);
    for rev in &args.revs {
        let commit = session.client.commit(&session.resolve(rev).await?).await?;
        log::show(session, &mut records, &commit, &[], &mut style).await?;
    }
    records.finish()
}
