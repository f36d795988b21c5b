//! What the runner and its supervisor say to each other: a line of JSON each,
//! over the supervisor's standard input, which is a socket.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The first line: how everything is run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    /// All variables there are to be.
    pub env: Vec<(OsString, OsString)>,
    /// Where commands are run: in the sandbox as seen from inside.
    pub dir: PathBuf,
    /// How long processes have between TERM and KILL.
    pub grace: Duration,
    /// Makes this folder's parts the only ones that are seen (scratch.rs).
    pub sandbox: bool,
    /// Whose processes they are to be.
    pub user: Option<u32>,
    /// What is run at the end, whatever happened.
    pub finally: Vec<Vec<String>>,
}

/// Each later line: what to run next. The end of the stream ends everything.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub run: Vec<OsString>,
}

/// What is answered to each line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Ready,
    /// It cannot be set up as asked.
    Refused(String),
    Exited(i32),
    Signalled(i32),
    NotStarted(String),
}
