//! Two worlds kept equal: a branch of a dk store, and a forge or a repository.
//!
//! A bridge is a client like any other: it sees neither the repository nor the
//! socket of the database.

pub mod github;
pub mod local;

/// Returns an error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
