//! The tests of dk, one binary.

mod diff;
mod history;
mod layering;
mod merge;
mod stock;
