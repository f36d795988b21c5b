//! A store's failures in the words of the contract.

use crate::client::Error;
use crate::model::failure::Failure;
use crate::store;

/// Says a store's failure in the words of the contract.
pub fn error(failure: store::Error) -> Error {
    match failure {
        // A source of edits that asked a store itself fails in these words already.
        store::Error::Source(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Failure::from(store::Error::Source(source)).into(),
        },
        failure => Failure::from(failure).into(),
    }
}
