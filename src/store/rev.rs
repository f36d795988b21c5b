//! What a revision names.

use crate::model::{ObjectId, Rev};

use super::objects::Objects;
use super::{Error, Result};

/// Returns the commit a revision names.
pub fn resolve(_objects: &Objects, _rev: &Rev) -> Result<ObjectId> {
    Err(Error::Unsupported("not there yet".into()))
}
