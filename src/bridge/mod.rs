//! Two worlds kept equal: a branch of a dk store, and a forge or a repository.
//!
//! A bridge is a client like any other: it sees neither the repository nor the
//! socket of the database.

pub mod github;
pub mod local;
