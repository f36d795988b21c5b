//! `dk ls`.

use crate::commands::Session;

/// List names
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk ls is not built yet")
}
