//! `dk init`.

use crate::commands::Session;

/// Create a store
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk init is not built yet")
}
