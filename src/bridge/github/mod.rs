//! GitHub's state kept in a branch, both ways.

pub mod api;
pub mod auth;
pub mod capabilities;
pub mod http;
pub mod plan;
mod read;
pub mod run;
pub mod sync;
pub mod webhook;
mod wire;
