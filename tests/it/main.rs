//! The tests of dk, one binary.

// A failed step of a test is a failed test.
#![allow(clippy::unwrap_used)]

mod cli_watch;
mod layering;
mod manual;
mod sandbox;
