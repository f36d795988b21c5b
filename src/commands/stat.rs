//! `dk stat`.

use crate::commands::Session;

/// Show what stands at a path
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk stat is not built yet")
}
