//! `dk completions`.

use crate::commands::Session;

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk completions is not built yet")
}
