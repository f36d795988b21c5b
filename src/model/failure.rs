//! A failure as data: everything one has to know to tell it again elsewhere.

use super::{ConflictKind, Kind, ObjectId, TreePath};

/// Why something failed, complete enough that another process says the same.
/// `model/text/failure.rs` prints and parses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: Kind,
    /// Names the thing that failed; lower case, no final period.
    pub message: String,
    /// What does not exist, where that is the failure.
    pub missing: Option<String>,
    /// The paths in conflict, and why each is.
    pub paths: Vec<(TreePath, ConflictKind)>,
    /// Where the head was, for a head that moved: `Some(None)` is unborn.
    pub actual: Option<Option<ObjectId>>,
    /// Which of several edits was refused; the first is number 1.
    pub edit: Option<usize>,
    /// What the user could do about it.
    pub hint: Option<String>,
    /// The causes below, outermost first.
    pub causes: Vec<String>,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            missing: None,
            paths: Vec::new(),
            actual: None,
            edit: None,
            hint: None,
            causes: Vec::new(),
        }
    }

    /// `what` does not exist.
    pub fn missing(what: impl Into<String>) -> Self {
        let what = what.into();
        let mut failure = Self::new(Kind::NotFound, format!("{what} does not exist"));
        failure.missing = Some(what);
        failure
    }
}
