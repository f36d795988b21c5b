//! The tests of dk, one binary.

mod layering;
mod refs;
