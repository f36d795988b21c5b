//! Arguments that name things in a store. Names are bytes: nothing here asks
//! for UTF-8.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::client::Expect;
use crate::model::path::NameError;
use crate::model::{BranchName, ObjectId, Rev, RevPath, TreePath};

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

/// Commits: those that led to one, less those that led to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub from: Option<Rev>,
    pub to: Rev,
}

impl Range {
    /// `B` or `A..B`; a missing side is HEAD. A name never holds two dots.
    pub fn new(text: &[u8]) -> Result<Self, NameError> {
        let side = |text: &[u8]| Rev::new(if text.is_empty() { b"HEAD" } else { text });
        match text.windows(2).position(|pair| pair == b"..") {
            Some(dots) => Ok(Self {
                from: Some(side(&text[..dots])?),
                to: side(&text[dots + 2..])?,
            }),
            None => Ok(Self {
                from: None,
                to: Rev::new(text)?,
            }),
        }
    }
}

/// REV or REV..REV
pub(super) fn range() -> impl TypedValueParser<Value = Range> {
    bytes(Range::new)
}

/// An id in full, or 0 for a branch without a commit.
pub(super) fn expect(text: &str) -> Result<Expect, String> {
    if !text.is_empty() && text.bytes().all(|b| b == b'0') {
        return Ok(Expect::Unborn);
    }
    ObjectId::from_hex(text.as_bytes())
        .map(Expect::Head)
        .ok_or_else(|| "give a commit id in full, or 0 for a branch without a commit".into())
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
    fn ranges() {
        let range = Range::new(b"a/b~1..c").expect("legal");
        assert_eq!(range.from.expect("given").to_string(), "a/b~");
        assert_eq!(range.to.to_string(), "c");
        let range = Range::new(b"a..").expect("legal");
        assert_eq!(range.to.to_string(), "HEAD");
        assert!(Range::new(b"a").expect("legal").from.is_none());
        assert!(Range::new(b"").is_err());
    }

    #[test]
    fn expected_heads() {
        assert_eq!(expect("0"), Ok(Expect::Unborn));
        assert_eq!(expect(&"0".repeat(40)), Ok(Expect::Unborn));
        assert!(matches!(expect(&"a".repeat(40)), Ok(Expect::Head(_))));
        assert!(expect("abc").is_err() && expect("").is_err());
    }

    #[test]
    fn a_branch_and_a_path() {
        let at = BranchPath::new(b"a/b:c:\xff").expect("legal");
        assert_eq!(at.branch.as_bytes(), b"a/b");
        assert_eq!(at.path.as_bytes(), b"c:\xff");
        assert!(BranchPath::new(b"a").expect("legal").path.is_root());
        assert!(BranchPath::new(b"a~1:b").is_err());
    }
}
