//! `dk fetch`.

use crate::commands::Session;

/// Fetch from another repository
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk fetch is not built yet")
}
