//! `dk export`.

use crate::commands::Session;

/// Write a tree into a folder or as a tar stream
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk export is not built yet")
}
