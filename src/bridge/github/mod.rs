//! GitHub's state kept in a branch, both ways.
//!
//! [`http`] speaks to GitHub and [`rest`] says what is asked for; [`sync`] keeps
//! both sides equal by the one rule of [`plan`]; [`webhook`] hears what happens
//! there and [`hooks`] has it told; [`run`] goes on for ever.

pub mod api;
pub mod auth;
pub mod capabilities;
pub mod hooks;
pub mod http;
pub mod notes;
pub mod plan;
mod read;
pub mod rest;
pub mod run;
pub mod sync;
pub mod webhook;
pub mod wire;
