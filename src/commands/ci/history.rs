//! `dk ci history`: what a target was before.

use crate::ci::Target;
use crate::ci::view;
use crate::ci::view::report::MomentReport;
use crate::commands::Session;

use super::status::{columns, line, unknown};

/// Show how the state of a target changed, newest first
///
/// A line each: the commit of the target's status branch, when it was made, and
/// what changed then.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk ci history -n 5 me/app/heads/master
  dk show \"$(dk ci history -n 1 me/app/pr/7 | cut -f1)\"

JSON:
  {\"commit\", \"time\", \"message\"}")]
pub struct Args {
    /// The target: USER/REPO/heads/NAME, …/tags/NAME or …/pr/NUMBER
    target: Target,
    /// Show only so many
    #[arg(
        short = 'n',
        long = "max-count",
        value_name = "N",
        default_value_t = 100
    )]
    limit: u64,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let moments = view::history(&*session.client, &args.target, None, args.limit).await?;
    if moments.is_empty() && args.limit > 0 {
        return Err(unknown(&args.target).into());
    }
    let mut records = session.ui.records();
    for moment in &moments {
        records.show(&MomentReport::new(moment), |report, out| {
            let message = line(&report.message);
            columns(&session.ui, &[&report.commit, &report.time, &message], out)
        })?;
    }
    records.finish()
}
