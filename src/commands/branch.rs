//! `dk branch`.

use crate::commands::Session;

/// List, create, delete, rename and move branches
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk branch is not built yet")
}
