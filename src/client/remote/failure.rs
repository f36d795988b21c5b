//! What a connection or a server says went wrong, in the words of the contract.

use std::error::Error as _;

use crate::client::Error;
use crate::model::failure::Failure;
use crate::model::{BranchName, Kind, ObjectId, TransactionId, TreePath};
use crate::ninep::client as ninep;

/// What was asked for, for messages that do not say it themselves.
#[derive(Clone, Debug)]
pub struct Context {
    /// A file of the tree.
    file: String,
    /// What a change would have done, as a whole sentence without its end, and
    /// the command that shows whether it did.
    change: Option<(String, String)>,
}

/// The command that shows what became of a branch.
pub fn log(branch: &BranchName) -> String {
    format!("dk log -n 5 {branch}")
}

/// The command that shows what became of a transaction.
pub fn status(tx: &TransactionId) -> String {
    format!("dk tx status {tx}")
}

impl Context {
    pub fn file(dir: &str, element: &[u8]) -> Self {
        Self {
            file: format!("{dir}/{}", String::from_utf8_lossy(element)),
            change: None,
        }
    }

    pub fn change(change: String, look: impl Into<String>) -> Self {
        Self {
            file: change.clone(),
            change: Some((change, look.into())),
        }
    }
}

impl From<&str> for Context {
    fn from(file: &str) -> Self {
        Self {
            file: file.into(),
            change: None,
        }
    }
}

/// Says what a server said.
pub fn error(url: &str, what: &Context, error: ninep::Error) -> Error {
    if error.lost {
        return lost(url, &error);
    }
    let mut failure = error.failure;
    if !error.whole {
        // All that is known is a number.
        if failure.kind == Kind::NotFound {
            return Error::NotFound {
                what: what.file.clone(),
            };
        }
        failure.message = format!("{}: {}", what.file, failure.message);
    }
    failure.into()
}

fn lost(url: &str, error: &ninep::Error) -> Error {
    with_cause(
        format!("the connection to {url} was lost"),
        error.failure.message.clone(),
    )
}

fn with_cause(message: String, cause: String) -> Error {
    let mut failure = Failure::new(Kind::Io, message);
    failure.causes = vec![cause];
    failure.into()
}

/// Nobody knows whether a change was made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unknown(String);

/// The answer to a change was lost.
pub fn unknown(url: &str, what: &Context, error: &ninep::Error) -> Error {
    let (change, hint) = match &what.change {
        Some((change, look)) => (
            change,
            format!("it may have been done: '{look}' shows whether it was"),
        ),
        None => (&what.file, "it may have been done: look first".into()),
    };
    Error::Other {
        kind: Kind::Io,
        message: format!("the connection to {url} was lost, and whether {change} is not known"),
        hint: Some(hint),
        source: Some(Box::new(Unknown(error.failure.message.clone()))),
    }
}

/// Tells whether an error is of [`unknown`].
pub fn is_unknown(error: &Error) -> bool {
    error
        .source()
        .is_some_and(|source| source.downcast_ref::<Unknown>().is_some())
}

/// The connection was lost before the change was asked for to its end.
pub fn not_done(url: &str, error: &ninep::Error) -> Error {
    with_cause(
        format!("the connection to {url} was lost, and nothing was changed"),
        error.failure.message.clone(),
    )
}

/// A server cannot be connected to.
pub fn unreachable(error: impl std::error::Error) -> Error {
    let mut failure = Failure::new(Kind::Io, error.to_string());
    failure.causes = causes(error.source());
    failure.hint = Some("is 'dk serve' running there?".into());
    failure.into()
}

/// What was connected to is no server for us.
pub fn no_session(url: &str, error: &ninep::Error) -> Error {
    let mut failure = Failure::new(
        error.failure.kind,
        format!("{url} cannot be used as a store"),
    );
    failure.causes = vec![error.failure.message.clone()];
    failure.into()
}

fn causes(mut next: Option<&(dyn std::error::Error + 'static)>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(error) = next {
        found.push(error.to_string());
        next = error.source();
    }
    found
}

/// A source of edits failed: in the words of the contract, if it asked a store.
pub fn source(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => {
            let mut failure = Failure::new(Kind::Io, error.to_string());
            failure.causes = causes(error.source());
            failure.into()
        }
    }
}

/// Content could not be read.
pub fn content(path: &TreePath, error: &std::io::Error) -> Error {
    with_cause(
        format!("cannot read the content of {path}"),
        error.to_string(),
    )
}

/// An answer is not what it should be.
pub fn nonsense(what: &str) -> Error {
    Error::new(Kind::Io, format!("the server's answer is not {what}"))
}

/// Names a commit that does not exist as what it is: the server was asked for
/// a revision.
pub fn of_commits(error: Error, ids: &[ObjectId]) -> Error {
    let Error::NotFound { what } = &error else {
        return error;
    };
    match ids.iter().find(|id| what.contains(&id.to_string())) {
        Some(id) => Error::NotFound {
            what: format!("commit {id}"),
        },
        None => error,
    }
}

/// Tells whether a path, and nothing else, does not exist.
pub fn missing_path(error: &Error, path: &TreePath) -> bool {
    matches!(error, Error::NotFound { what } if *what == path.to_string())
}
