//! The tests of dk, one binary.

mod engine_contract;
mod engine_subject;
mod layering;
