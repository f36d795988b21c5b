//! `dk diff`.

use crate::commands::Session;

/// Show the paths that differ between two commits
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk diff is not built yet")
}
