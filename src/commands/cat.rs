//! `dk cat`.

use crate::commands::Session;

/// Write files to stdout
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk cat is not built yet")
}
