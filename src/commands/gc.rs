//! `dk gc`: pack objects and drop what nothing reaches.

use anyhow::Context as _;

use crate::commands::Session;

/// Pack objects and drop what nothing reaches any more
///
/// Runs `git gc`, which keeps what was written in the last two weeks, drops
/// finished transactions past their seven days, and clears away what dead
/// processes left. Prints a count a line: the number, a tab, what it counts.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk gc --dry-run
  dk gc && dk fsck

JSON:
  {\"loose_objects\", \"loose_bytes\", \"packs\", \"pack_bytes\", \"transactions\", \"leftovers\"}")]
pub struct Args {
    /// Change nothing: only count
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(super) async fn run(session: &Session, args: Args) -> anyhow::Result<()> {
    let collected = session
        .client
        .gc(args.dry_run, session.ui.progress())
        .await
        .context("cannot collect garbage")?;
    session.ui.show(&collected, |collected, out| {
        for (count, what) in [
            (collected.loose_objects, "loose objects"),
            (collected.loose_bytes, "bytes of loose objects"),
            (collected.packs, "packs"),
            (collected.pack_bytes, "bytes of packs"),
            (collected.transactions, "finished transactions"),
            (collected.leftovers, "leftover files"),
        ] {
            writeln!(out, "{count}\t{what}")?;
        }
        Ok(())
    })
}
