//! `dk man`.

use crate::commands::Session;

/// Show a manual page
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk man is not built yet")
}
