//! `dk import`.

use crate::commands::Session;

/// Read a folder or a tar stream into one commit
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk import is not built yet")
}
