//! `dk put`.

use crate::commands::Session;

/// Write one file in one commit
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk put is not built yet")
}
