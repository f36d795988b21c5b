//! `dk edit`.

use crate::commands::Session;

/// Edit one file in an editor, then commit it
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk edit is not built yet")
}
