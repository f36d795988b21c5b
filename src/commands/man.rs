//! `dk man` and `dk help`: the man pages, made from the one definition.

use crate::ui::Ui;

/// Show a man page
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The command, as words: `tx begin`
    page: Vec<String>,
}

/// Show how a command is used
#[derive(clap::Args, Debug)]
pub struct HelpArgs {
    /// The command, as words: `tx begin`
    command: Vec<String>,
}

pub(super) fn run(_ui: &Ui, _args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("dk man is not built yet")
}

pub(super) fn help(_ui: &Ui, _args: &HelpArgs) -> anyhow::Result<()> {
    anyhow::bail!("dk help is not built yet")
}
