//! How a change becomes a commit: the flags that the commands which change a
//! branch have in common, and the record they print.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use serde::Serialize;

use crate::client::{CommitOptions, Empty, Expect};
use crate::commands::{Session, parse};
use crate::model::{ObjectId, text};

/// The flags.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Flags {
    /// The message of the commit
    #[arg(short, long, value_name = "MSG")]
    message: Option<OsString>,
    #[command(flatten)]
    pub guard: Guard,
    #[command(flatten)]
    empty: EmptyFlags,
}

/// What must hold for the branch to be written.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Guard {
    /// Fail with status 5 unless the branch's head is this commit; 0: it has none
    #[arg(long, value_name = "ID", value_parser = parse::expect)]
    pub expect: Option<Expect>,
    /// Write the branch even if a work tree has it checked out
    #[arg(long)]
    pub force: bool,
}

/// What becomes of a commit that changes nothing.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct EmptyFlags {
    /// Commit even if nothing changes (this is the default)
    #[arg(long, overrides_with = "no_empty")]
    allow_empty: bool,
    /// If nothing changes make no commit, and print the head that stands
    #[arg(long, overrides_with = "allow_empty")]
    no_empty: bool,
}

impl EmptyFlags {
    pub fn choice(&self) -> Empty {
        if self.no_empty {
            Empty::Skip
        } else {
            Empty::Allow
        }
    }
}

impl Flags {
    /// Returns how the commit is to be made; without `-m` its message is `message`.
    pub async fn options(
        &self,
        session: &Session,
        message: impl FnOnce() -> String,
    ) -> anyhow::Result<CommitOptions> {
        let given = self.message.clone().map(in_full);
        Ok(CommitOptions {
            message: Some(given.unwrap_or_else(|| in_full(message().into()))),
            author: Some(session.signature().await?),
            expect: self.guard.expect.unwrap_or_default(),
            force: self.guard.force,
            empty: self.empty.choice(),
            ..CommitOptions::default()
        })
    }
}

/// Returns a message as Git keeps one: its last line is ended.
pub(super) fn in_full(message: OsString) -> Vec<u8> {
    let mut message = message.into_vec();
    if !message.is_empty() && !message.ends_with(b"\n") {
        message.push(b'\n');
    }
    message
}

/// Prints the commit a branch is at now: under `--json` as `{"commit": ID}`.
pub(super) fn show(session: &Session, commit: ObjectId) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Record {
        commit: ObjectId,
    }
    session.ui.show(&Record { commit }, |record, out| {
        writeln!(out, "{}", record.commit)
    })
}

/// Returns names for a default message: on one line, and not too many.
pub(super) fn named<'a>(names: impl ExactSizeIterator<Item = &'a [u8]>) -> String {
    const SHOWN: usize = 3;
    let more = names.len().saturating_sub(SHOWN);
    let mut words: Vec<String> = names
        .take(SHOWN)
        .map(|name| text::quote(name).to_string())
        .collect();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(" ")
}
