//! What goes wrong in the tree, with the texts that old clients compare
//! (dk-tree(5), ERRORS).

use crate::model::failure::Failure;
use crate::model::path::NameError;
use crate::model::{Kind, ObjectId};
use crate::store;

use super::node::Error;

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let failure = Failure::from(error);
        let text = match failure.kind {
            Kind::NotFound => Some(NO_ENTRY),
            Kind::IsDirectory => Some(IS_DIRECTORY),
            Kind::NotDirectory => Some(NOT_DIRECTORY),
            Kind::Exists => Some(EXISTS),
            _ => None,
        };
        Self {
            text: text.map(str::to_owned),
            failure,
        }
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::new(Kind::Invalid, error.to_string())
    }
}

const NO_ENTRY: &str = "No such file or directory";
const IS_DIRECTORY: &str = "Is a directory";
const NOT_DIRECTORY: &str = "Is not a directory";
const EXISTS: &str = "Already exists";

/// Nothing of this name is here.
pub fn no_entry(what: impl Into<String>) -> Error {
    Error {
        text: Some(NO_ENTRY.into()),
        failure: Failure::missing(what),
    }
}

/// As [`no_entry`], named as bytes.
pub fn no_name(name: &[u8]) -> Error {
    no_entry(crate::model::text::quote(name).to_string())
}

pub fn is_directory(what: impl std::fmt::Display) -> Error {
    Error {
        text: Some(IS_DIRECTORY.into()),
        failure: Failure::new(Kind::IsDirectory, format!("{what} is a directory")),
    }
}

/// A step of a path is a file.
pub fn not_directory(what: impl std::fmt::Display) -> Error {
    Error {
        text: Some(NOT_DIRECTORY.into()),
        failure: Failure::new(Kind::NotDirectory, format!("{what} is not a directory")),
    }
}

pub fn walk_from_file() -> Error {
    Error::text(Kind::NotDirectory, "Can't walk from a file")
}

pub fn exists(what: impl std::fmt::Display) -> Error {
    Error {
        text: Some(EXISTS.into()),
        failure: Failure::new(Kind::Exists, format!("{what} exists already")),
    }
}

pub fn not_empty(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::NotEmpty, format!("{what} has entries"))
}

pub fn read_only_file() -> Error {
    Error::text(Kind::ReadOnly, "Read-only file")
}

pub fn read_only_dir() -> Error {
    Error::text(Kind::ReadOnly, "Directory is read-only")
}

pub fn not_permitted() -> Error {
    Error::text(Kind::Denied, "Operation not permitted")
}

pub fn only_directories() -> Error {
    Error::text(Kind::Denied, "Can only contain directories")
}

pub fn seek() -> Error {
    Error::text(Kind::Invalid, "Attempt to seek in stream")
}

pub fn extend_command() -> Error {
    Error::text(Kind::Invalid, "Can't extend command file")
}

pub fn chmod_special() -> Error {
    Error::text(Kind::Denied, "Can't chmod special file")
}

pub fn missing_target() -> Error {
    Error::text(Kind::Invalid, "Missing target for symlink!")
}

pub fn directory_flag() -> Error {
    Error::text(Kind::Invalid, "Incorrect is_directory flag for chmod")
}

/// A directory asked for what only a file has.
pub fn directory_length() -> Error {
    Error::text(Kind::IsDirectory, "Can't set length of a directory")
}

pub fn not_a_link() -> Error {
    Error::new(Kind::Invalid, "not a symbolic link")
}

/// A commit id that is none.
pub fn invalid_hash(text: &[u8]) -> Error {
    let shown = escaped(text);
    Error::text(
        Kind::Invalid,
        format!("invalid-hash \"{shown}\": Failure(\"{shown}\")"),
    )
}

/// Bytes in the ancestor's double quotes: C-style escapes.
fn escaped(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_default().to_string()
}

pub fn unknown_command(word: &[u8]) -> Error {
    Error::text(
        Kind::Invalid,
        format!("Unknown command \"{}\"", escaped(word)),
    )
}

pub fn not_fast_forward(to: &ObjectId, actual: Option<ObjectId>) -> Error {
    let mut failure = Failure::new(
        Kind::HeadMoved,
        format!("the head cannot move to {to}: not a fast-forward"),
    );
    failure.actual = Some(actual);
    Error {
        text: Some("not-fast-forward".into()),
        failure,
    }
}

/// A file was to go from one tree into another: programs copy it then.
pub fn another_tree() -> Error {
    Error::text(Kind::Unsupported, "Invalid cross-device link")
}

/// Conflicts of a merge that were not resolved are in the way.
pub fn unresolved(conflicts: &[crate::model::Conflict]) -> Error {
    let mut failure = Failure::new(
        Kind::Conflict,
        format!("{} path(s) in conflict", conflicts.len()),
    );
    let path = |conflict: &crate::model::Conflict| (conflict.path.clone(), conflict.kind);
    failure.paths = conflicts.iter().map(path).collect();
    Error {
        text: Some("conflicts file is not empty".into()),
        failure,
    }
}

/// Committing found conflicts with the branch.
pub fn merge_conflict(conflicts: &[crate::model::Conflict]) -> Error {
    let detail = conflicts
        .first()
        .map_or("unknown", |conflict| conflict.kind.text());
    Error {
        text: Some(format!("Merge conflict: {detail}")),
        ..unresolved(conflicts)
    }
}

/// An offset or length with its highest bit set, as the ancestor says it.
pub fn negative(offset: u64) -> Error {
    Error::text(
        Kind::Invalid,
        format!("Negative offset {}", offset.cast_signed()),
    )
}

pub fn bad_write(offset: u64) -> Error {
    Error::text(
        Kind::Invalid,
        format!("Bad write offset {}", offset.cast_signed()),
    )
}

pub fn beyond_end(offset: u64, length: u64) -> Error {
    Error::text(
        Kind::Invalid,
        format!("Offset {offset} beyond end-of-file (len = {length})"),
    )
}

pub fn too_long(what: &str, most: u64) -> Error {
    Error::new(
        Kind::NoSpace,
        format!("{what} holds no more than {most} bytes"),
    )
}
