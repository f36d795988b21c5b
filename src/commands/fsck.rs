//! `dk fsck`.

use crate::commands::Session;

/// Check every object and every ref
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk fsck is not built yet")
}
