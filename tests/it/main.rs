//! The tests of dk, one binary.

<<<<<<< HEAD
// In a test a panic is the message.
#![allow(clippy::unwrap_used)]

mod client_contract;
mod layering;
mod sandbox;
=======
mod diff;
mod history;
mod layering;
mod merge;
mod stock;
>>>>>>> logic
