//! `dk rm`.

use crate::commands::Session;

/// Remove paths in one commit
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk rm is not built yet")
}
