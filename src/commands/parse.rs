//! Arguments that name things in a store. Names are bytes: nothing here asks
//! for UTF-8.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::model::path::NameError;
use crate::model::{BranchName, Rev, RevPath, TreePath};

/// A branch, and a path in it: what a command that changes something is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BranchPath {
    pub branch: BranchName,
    /// The root where no `:` was written.
    pub path: TreePath,
}

impl BranchPath {
    pub fn new(text: &[u8]) -> Result<Self, NameError> {
        let (branch, path) = match text.iter().position(|b| *b == b':') {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &b""[..]),
        };
        Ok(Self {
            branch: BranchName::new(branch)?,
            path: TreePath::new(path)?,
        })
    }
}

/// REV
pub(super) fn rev() -> impl TypedValueParser<Value = Rev> {
    bytes(|text| Rev::new(text))
}

/// REV:PATH
pub(super) fn rev_path() -> impl TypedValueParser<Value = RevPath> {
    bytes(|text| RevPath::new(text))
}

/// BRANCH
pub(super) fn branch() -> impl TypedValueParser<Value = BranchName> {
    bytes(|text| BranchName::new(text))
}

/// BRANCH:PATH
pub(super) fn branch_path() -> impl TypedValueParser<Value = BranchPath> {
    bytes(BranchPath::new)
}

/// PATH
pub(super) fn path() -> impl TypedValueParser<Value = TreePath> {
    bytes(|text| TreePath::new(text))
}

fn bytes<T: Clone + Send + Sync + 'static>(
    parse: fn(&[u8]) -> Result<T, NameError>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |text: OsString| parse(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_and_a_path() {
        let at = BranchPath::new(b"a/b:c:\xff").expect("legal");
        assert_eq!(at.branch.as_bytes(), b"a/b");
        assert_eq!(at.path.as_bytes(), b"c:\xff");
        assert!(BranchPath::new(b"a").expect("legal").path.is_root());
        assert!(BranchPath::new(b"a~1:b").is_err());
    }
}
