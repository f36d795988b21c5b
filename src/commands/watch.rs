//! `dk watch`.

use crate::commands::Session;

/// Wait for commits and print what they changed
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk watch is not built yet")
}
