//! Commits, newest first, as `git log` gives them.

use std::sync::Arc;

use crate::model::Commit;
use crate::model::request::LogQuery;

use super::objects::Objects;
use super::{Error, Result};

/// The commits a query asks for, read as they are asked for.
pub struct Log {}

impl Log {
    pub fn new(_objects: Arc<Objects>, _query: LogQuery) -> Self {
        Self {}
    }
}

impl Iterator for Log {
    type Item = Result<Commit>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(Err(Error::Unsupported("not there yet".into())))
    }
}
