//! `dk remote`.

use crate::commands::Session;

/// List, add and remove remotes
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk remote is not built yet")
}
