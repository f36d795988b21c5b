//! What a daemon says about its work, by target and level.
//!
//! Rooms log with `tracing`; this file says where it goes and how much of it.

/// A part of the program whose level can be set by itself.
pub struct Target {
    pub name: &'static str,
    /// What it tells, for whoever sets its level.
    pub doc: &'static str,
}

/// The targets there are, in order of their names.
pub const TARGETS: &[Target] = &[
    Target {
        name: "namespace",
        doc: "the file tree",
    },
    Target {
        name: "ninep",
        doc: "9P connections and requests",
    },
    Target {
        name: "serve",
        doc: "listeners, and pushing by itself",
    },
    Target {
        name: "store",
        doc: "the database",
    },
];

/// The words a level is set with, least first.
pub const LEVELS: &[&str] = &["quiet", "app", "error", "warning", "info", "debug"];

/// Returns a target's level, a word of [`LEVELS`].
pub fn level(_target: &str) -> &'static str {
    "warning"
}

/// Sets a target's level in the whole process. `false`: no such target or word.
pub fn set_level(_target: &str, _word: &str) -> bool {
    false
}
