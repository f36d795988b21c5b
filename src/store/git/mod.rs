//! A Git repository as an engine.

mod claim;
mod folders;
mod lock;
mod moves;
mod notice;
mod packed;
mod recovery;
mod reflog;
pub mod refs;
mod settings;
mod turn;
