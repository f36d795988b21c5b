//! `dk init`.

use crate::commands::Global;
use crate::ui::Ui;

/// Create a store
#[derive(clap::Args, Debug)]
pub struct Args {}

pub(super) async fn run(_ui: &Ui, _global: &Global, _args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dk init is not built yet")
}
