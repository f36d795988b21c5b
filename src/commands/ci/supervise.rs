//! `dk ci supervise`: the process between the engine and the processes of a
//! step. Not for people: the engine runs it.

use std::os::fd::AsFd as _;

use anyhow::Context as _;

use crate::ci::runner;
use crate::commands::hold_signals;

/// Run the commands of a step, as the engine says on standard input
#[derive(clap::Args, Debug)]
pub(super) struct Args {}

pub(super) async fn run(_args: Args) -> anyhow::Result<()> {
    // Signals end the step, and only then this.
    let _held = hold_signals();
    let control = std::io::stdin().as_fd().try_clone_to_owned();
    let control = control.context("standard input is not open")?;
    let served = runner::supervise(control).await;
    served.context("standard input is no socket of the engine")
}
