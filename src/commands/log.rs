//! `dk log`.

use crate::commands::Session;

/// Show commits
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk log is not built yet")
}
