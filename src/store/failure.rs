//! A store's failures as data.

use crate::model::failure::Failure;

use super::Error;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Self::new(error.kind(), error.to_string());
        failure.causes = causes(std::error::Error::source(&error));
        match error {
            Error::NotFound(what) => failure.missing = Some(what),
            Error::Conflict(conflicts) => {
                let path = |conflict: crate::model::Conflict| (conflict.path, conflict.kind);
                failure.paths = conflicts.into_iter().map(path).collect();
            }
            Error::HeadMoved { actual, .. } | Error::NotFastForward { actual, .. } => {
                failure.actual = Some(actual);
            }
            Error::Edit { number, error } => {
                failure = Self::from(*error);
                failure.edit = Some(number);
            }
            Error::Denied { hint, .. } => failure.hint = Some(hint),
            // Its text is that of the source: only what is below is a cause.
            Error::Source(source) => failure.causes = causes(source.source()),
            _ => (),
        }
        failure
    }
}

fn causes(mut next: Option<&(dyn std::error::Error + 'static)>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(error) = next {
        found.push(error.to_string());
        next = error.source();
    }
    found
}
