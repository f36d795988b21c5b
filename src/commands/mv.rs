//! `dk mv`.

use crate::commands::Session;

/// Move a path in one commit
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk mv is not built yet")
}
