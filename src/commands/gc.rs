//! `dk gc`.

use crate::commands::Session;

/// Pack objects and drop what nothing reaches
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_session: &Session, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk gc is not built yet")
}
