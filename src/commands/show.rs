//! `dk show`.

use crate::commands::Session;

/// Show one commit
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk show is not built yet")
}
