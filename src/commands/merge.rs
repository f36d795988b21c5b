//! `dk merge`.

use crate::commands::Session;

/// Merge a commit into a branch
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk merge is not built yet")
}
