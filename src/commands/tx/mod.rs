//! `dk tx`.

use crate::commands::Session;

/// Work with transactions that outlive a process
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk tx is not built yet")
}
