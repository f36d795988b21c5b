//! GitHub's state kept in a branch, both ways.

pub mod api;
pub mod capabilities;
pub mod plan;
pub mod sync;
