//! `dk ci cancel`: stop builds.

use crate::ci::request::{self, Chosen};
use crate::commands::Session;
use crate::commands::ci::rebuild::show;
use crate::commands::ci::which::Which;
use crate::ui::Usage;

/// Stop builds
///
/// All processes of a step end. What was cancelled is no result: whoever wants
/// it anew has it built again; the target it was cancelled for waits for 'dk ci
/// rebuild'. Builds that no target waits for are stopped by the engine itself.
/// Prints the branch of each.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci cancel me/app/pr/7
  dk ci cancel me/app/heads/master:test
  dk ci cancel --all

JSON:
  {\"branch\"}")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Builds that no target waits for any more
    #[arg(long, conflicts_with_all = ["target", "all"])]
    outdated: bool,
    /// All builds
    #[arg(long, conflicts_with = "target")]
    all: bool,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    if args.which.target.is_none() && !args.outdated && !args.all {
        let refused = Usage::new("name a target, or say --outdated or --all");
        return Err(refused.into());
    }
    let by = Some(session.signature().await?);
    let (client, metadata) = (&*session.client, &args.which.metadata_branch);
    let asked = if args.outdated {
        request::cancel_outdated(client, metadata, by).await?
    } else {
        let (which, step) = args.which.chosen(None);
        let chosen = Chosen {
            which,
            step,
            failed: false,
        };
        request::cancel(client, metadata, &chosen, by).await?
    };
    show(session, &asked)
}
