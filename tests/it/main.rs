//! The tests of dk, one binary.

mod client_contract;
mod layering;
