//! `dk tree`.

use crate::commands::Session;

/// Draw a tree
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk tree is not built yet")
}
