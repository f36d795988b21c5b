//! A store's failures in the words of the contract.

use crate::client::{Error, Refused};
use crate::model::Kind;
use crate::store;

/// Says a store's failure in the words of the contract.
pub fn error(failure: store::Error) -> Error {
    let kind = failure.kind();
    let message = failure.to_string();
    match failure {
        store::Error::NotFound(what) => Error::NotFound { what },
        store::Error::Conflict(conflicts) => Error::Conflict {
            kinds: conflicts.iter().map(|conflict| conflict.kind).collect(),
            paths: conflicts
                .into_iter()
                .map(|conflict| conflict.path)
                .collect(),
        },
        store::Error::HeadMoved { actual, .. } | store::Error::NotFastForward { actual, .. } => {
            Error::HeadMoved { message, actual }
        }
        store::Error::Source(source) => Error::Other {
            kind: source.downcast_ref::<Error>().map_or(Kind::Io, Error::kind),
            message,
            hint: None,
            source: match source.downcast::<Error>() {
                Ok(_) => None,
                Err(source) => source.source().map(|cause| cause.to_string().into()),
            },
        },
        store::Error::Edit {
            number,
            error: cause,
        } => Error::Edit(Refused {
            number,
            error: Box::new(error(*cause)),
        }),
        store::Error::Denied { message, hint } => Error::Other {
            kind,
            message,
            hint: Some(hint),
            source: None,
        },
        store::Error::Io { what, source } => Error::Other {
            kind,
            message: what,
            hint: None,
            source: Some(Box::new(source)),
        },
        store::Error::Failed { what, source } => Error::Other {
            kind,
            message: what,
            hint: None,
            source: Some(source),
        },
        _ => Error::new(kind, message),
    }
}
