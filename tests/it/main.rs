//! The tests of dk, one binary.

// In a test a panic is the message.
#![allow(clippy::unwrap_used)]

mod cli_watch;
mod client_contract;
mod diff;
mod history;
mod layering;
mod manual;
mod merge;
mod refs;
mod remotes;
mod sandbox;
mod stock;
