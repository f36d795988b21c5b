//! `dk push`.

use crate::commands::Session;

/// Push to another repository
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk push is not built yet")
}
