//! How the CI lies in the store, byte for byte: names, paths and formats,
//! printed and parsed side by side. Nothing here reads or writes.
//!
//! ```text
//! the metadata branch (the bridge's)
//!   U/R/.monitor                                  the repository is tested
//!   U/R/commit/SHA/status/PREFIX/CELL/…           statuses, written by the `forge` room
//! status-<user>-<repo>-pr-<N>                     history, one commit a change
//! status-<user>-<repo>-ref-<heads>-<name>
//!   source-commit, metadata-commit                what it was worked out from
//!   job/CELL/output                               an Output
//!   job/CELL/needs                                cells it waits for, a line each
//! commit-index
//!   U/R/commit/SHA/SUBNAME                        commit of the status branch
//! dk-step-<cell>-of-<digest>                      a result
//!   key                                           what it depends on, a part a line
//!   build                                         a Build: who wanted it, when
//!   log.d/NNNNNNNN                                parts of the log while it grows
//!   log                                           the whole log: the build has ended
//!   failure, cancelled                            why it has no result
//!   value/…                                       the outputs
//!   rebuild-requested, cancel-requested           marks
//! dk-ci
//!   requests/BRANCH                               a result branch got a mark
//!   approved/U/R/pr/N                             the commit that may run
//! dk-ci-lease
//!   lease                                         the engine that serves the store
//! ```
//!
//! Contents have no newline at their end, except where a line of text is meant
//! for people.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::forge::{RefName, Repo};
use crate::model::path::NameError;
use crate::model::{BranchName, ObjectId, TreePath};

mod record;

pub use record::{Build, Lease, Logs, Outcome, Output, SavedLog, State};

pub const SOURCE_COMMIT: &str = "source-commit";
pub const METADATA_COMMIT: &str = "metadata-commit";
pub const COMMIT_INDEX: &str = "commit-index";

pub const KEY: &str = "key";
pub const BUILD: &str = "build";
pub const LOG: &str = "log";
/// The folder of a growing log's parts.
pub const LOG_PARTS: &str = "log.d";
pub const FAILURE: &str = "failure";
pub const CANCELLED: &str = "cancelled";
pub const VALUE: &str = "value";
pub const REBUILD_REQUESTED: &str = "rebuild-requested";
pub const CANCEL_REQUESTED: &str = "cancel-requested";

/// The branch of requests and approvals.
pub const ROOM: &str = "dk-ci";
pub const REQUESTS: &str = "requests";
pub const APPROVED: &str = "approved";
pub const LEASE_BRANCH: &str = "dk-ci-lease";
pub const LEASE: &str = "lease";

/// Bytes of a cell's name that its result branch shows.
const SHOWN: usize = 170;

/// What is tested: a pull request or a ref of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    pub repo: Repo,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Pr(u64),
    /// Without `refs/`: `heads/master`.
    Ref(RefName),
}

impl Target {
    pub fn pr(repo: &Repo, number: u64) -> Self {
        Self {
            repo: repo.clone(),
            place: Place::Pr(number),
        }
    }

    pub fn of_ref(repo: &Repo, name: &RefName) -> Self {
        Self {
            repo: repo.clone(),
            place: Place::Ref(name.clone()),
        }
    }

    /// Returns `NAME` of `heads/NAME`: nothing for tags and pull requests.
    pub fn branch(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Ref(name) => name.as_bytes().strip_prefix(b"heads/"),
            Place::Pr(_) => None,
        }
    }
}

/// `heads/x`, `tags/x` or `pr/N`: what patterns of targets are compared with.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pr(number) => write!(f, "pr/{number}"),
            Self::Ref(name) => f.write_str(&String::from_utf8_lossy(name.as_bytes())),
        }
    }
}

/// `U/R/heads/x`, `U/R/tags/x` or `U/R/pr/N`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.repo, self.place)
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text names no target. It names the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("missing user/ at start of {0:?}")]
    NoUser(String),
    #[error("missing repository/ after the user in {0:?}")]
    NoRepo(String),
    #[error("missing heads/NAME, tags/NAME or pr/N in {0:?}")]
    NoPlace(String),
    #[error("invalid pull request number {0:?}")]
    Number(String),
    #[error("bad target type {0:?} (should be heads, tags or pr)")]
    Kind(String),
    #[error(transparent)]
    Ref(#[from] NameError),
}

impl std::str::FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let whole = || text.to_owned();
        let (user, rest) = text
            .split_once('/')
            .ok_or_else(|| BadTarget::NoUser(whole()))?;
        let (name, rest) = match rest.split_once('/') {
            Some(parts) => parts,
            None if rest.is_empty() => return Err(BadTarget::NoRepo(whole())),
            None => return Err(BadTarget::NoPlace(whole())),
        };
        let repo = Repo::new(user, name).ok_or_else(|| BadTarget::NoUser(whole()))?;
        let (kind, name) = rest
            .split_once('/')
            .filter(|(_, name)| !name.is_empty())
            .ok_or_else(|| BadTarget::NoPlace(whole()))?;
        let place = match kind {
            "heads" | "tags" => Place::Ref(TreePath::new(rest)?),
            "pr" | "prs" => Place::Pr(
                name.parse()
                    .map_err(|_| BadTarget::Number(name.to_owned()))?,
            ),
            _ => return Err(BadTarget::Kind(kind.to_owned())),
        };
        Ok(Self { repo, place })
    }
}

/// Returns bytes as one component of a branch's name: all but letters, digits
/// and dots as `_` and two digits.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || *byte == b'.' {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("_{byte:02x}"));
        }
    }
    out
}

/// The reverse of [`escape`]: nothing where no text is escaped like that.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if first.is_ascii_alphanumeric() || *first == b'.' {
            out.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        // One text has one name.
        if *first != b'_' || format!("{byte:02x}") != digits || escape(&[byte]).len() == 1 {
            return None;
        }
        out.push(byte);
        rest = &after[2..];
    }
    Some(out)
}

/// Returns the last part of a status branch's name: `pr-3907`, `ref-heads-master`.
pub fn sub_name(place: &Place) -> String {
    match place {
        Place::Pr(number) => format!("pr-{number}"),
        Place::Ref(name) => {
            let mut parts = name.as_bytes().splitn(2, |b| *b == b'/').map(escape);
            let first = parts.next().unwrap_or_default();
            match parts.next() {
                Some(rest) => format!("ref-{first}-{rest}"),
                None => format!("ref-{first}"),
            }
        }
    }
}

/// The reverse of [`sub_name`].
pub fn read_sub_name(text: &str) -> Option<Place> {
    let parts: Vec<&str> = text.split('-').collect();
    let place = match parts[..] {
        ["pr", number] => Place::Pr(number.parse().ok()?),
        ["ref", first] => Place::Ref(TreePath::new(unescape(first)?).ok()?),
        ["ref", first, rest] => {
            let mut name = unescape(first)?;
            name.push(b'/');
            name.extend(unescape(rest)?);
            Place::Ref(TreePath::new(name).ok()?)
        }
        _ => return None,
    };
    (sub_name(&place) == text).then_some(place)
}

/// Returns the branch of a target's history.
pub fn status_branch(target: &Target) -> Result<BranchName, NameError> {
    let user = escape(target.repo.user().as_bytes());
    let repo = escape(target.repo.name().as_bytes());
    BranchName::new(format!("status-{user}-{repo}-{}", sub_name(&target.place)))
}

/// The reverse of [`status_branch`]: nothing for every other branch.
pub fn read_status_branch(branch: &BranchName) -> Option<Target> {
    let text = std::str::from_utf8(branch.as_bytes()).ok()?;
    let mut parts = text.strip_prefix("status-")?.splitn(3, '-');
    let mut component = || String::from_utf8(unescape(parts.next()?)?).ok();
    let repo = Repo::new(&component()?, &component()?)?;
    let place = read_sub_name(parts.next()?)?;
    Some(Target { repo, place })
}

/// Returns the path of a cell's output in a status branch.
pub fn output_path(cell: &str) -> String {
    format!("job/{cell}/output")
}

/// Returns the path of what a cell waits for, in a status branch: the names of
/// cells, a line each.
pub fn needs_path(cell: &str) -> String {
    format!("job/{cell}/needs")
}

/// Returns the path of a target's entry in the commit index; without a target,
/// the folder of a commit's entries.
pub fn index_path(repo: &Repo, sha: &str, place: Option<&Place>) -> String {
    match place {
        Some(place) => format!("{repo}/commit/{sha}/{}", sub_name(place)),
        None => format!("{repo}/commit/{sha}"),
    }
}

/// Returns the branch of the result with that digest.
pub fn result_branch(cell: &str, digest: &str) -> BranchName {
    let mut cell = escape(cell.as_bytes());
    cell.truncate(SHOWN);
    // Dots are all that Git might not like, and the digest tells all apart.
    let legal = |cell: &str| BranchName::new(format!("dk-step-{cell}-of-{digest}"));
    legal(&cell)
        .or_else(|_| legal(&cell.replace('.', "_2e")))
        .expect("letters, digits, dashes and underscores are legal")
}

/// Tells whether a branch holds a result of one of our steps.
pub fn is_result_branch(branch: &BranchName) -> bool {
    branch.as_bytes().starts_with(b"dk-step-")
}

/// Returns the path of a part of a growing log. The first is number 0.
pub fn log_part(number: u64) -> String {
    format!("{LOG_PARTS}/{number:08}")
}

/// Returns the path, in [`ROOM`], that says a branch got a mark.
pub fn request_path(branch: &BranchName) -> String {
    format!("{REQUESTS}/{}", escape(branch.as_bytes()))
}

/// The reverse of [`request_path`], given the last step.
pub fn read_request(step: &[u8]) -> Option<BranchName> {
    BranchName::new(unescape(std::str::from_utf8(step).ok()?)?).ok()
}

/// Returns the path, in [`ROOM`], of the commit of a pull request that may run.
pub fn approval_path(repo: &Repo, number: u64) -> String {
    format!("{APPROVED}/{repo}/pr/{number}")
}

/// Returns a text as a part of a URL holds it: all but letters, digits and
/// `-._~,` as `%XX`.
pub fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b',' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Returns a wall-clock time as logs show it: `2026-11-22 18:04.09`.
pub fn log_time(time: crate::model::Time) -> String {
    let zone = jiff::tz::Offset::from_seconds(time.offset.saturating_mul(60));
    let zone = zone.unwrap_or(jiff::tz::Offset::UTC).to_time_zone();
    match jiff::Timestamp::from_second(time.seconds) {
        Ok(at) => at.to_zoned(zone).strftime("%Y-%m-%d %H:%M.%S").to_string(),
        Err(_) => time.seconds.to_string(),
    }
}

/// Reads the id of a commit as files hold it.
pub fn read_id(content: &[u8]) -> Option<ObjectId> {
    ObjectId::from_hex(content.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().expect(text)
    }

    #[test]
    fn targets_and_their_branches() {
        for (text, branch) in [
            ("user/project/pr/3907", "status-user-project-pr-3907"),
            (
                "moby/datakit/heads/feature/x",
                "status-moby-datakit-ref-heads-feature_2fx",
            ),
            ("a-b/c_d/tags/v1.0", "status-a_2db-c_5fd-ref-tags-v1.0"),
        ] {
            assert_eq!(target(text).to_string(), text);
            let made = status_branch(&target(text)).expect("legal");
            assert_eq!(made.as_bytes(), branch.as_bytes());
            assert_eq!(read_status_branch(&made), Some(target(text)));
        }
        assert_eq!(target("u/r/prs/7"), target("u/r/pr/7"));
        for bad in [
            "",
            "u",
            "u/r",
            "u/r/pr",
            "u/r/pr/x",
            "u/r/notes/x",
            "u/r/heads/",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        for bad in [
            "master",
            "status-u-r",
            "status-u-r-pr-07",
            "status-u-r-ref-heads-a_2",
            "status-u-r-ref-heads-_61",
            "status-u-r-ref-heads-a_2F",
            "status-u_2fx-r-pr-1",
        ] {
            let branch = BranchName::new(bad).expect("legal");
            assert_eq!(read_status_branch(&branch), None, "{bad}");
        }
    }

    #[test]
    fn result_branches_are_legal_whatever_the_cell_is_called() {
        let digest = "0".repeat(40);
        for cell in [
            "build",
            "test,locale=de_DE,os=x",
            "a..b",
            &"é,".repeat(300),
            "x.lock",
        ] {
            let branch = result_branch(cell, &digest);
            assert!(is_result_branch(&branch), "{cell}");
            let path = request_path(&branch);
            let step = path.rsplit('/').next().expect("two steps");
            assert_eq!(read_request(step.as_bytes()), Some(branch));
        }
        assert_eq!(
            result_branch("test,os=x", "abc").to_string(),
            "dk-step-test_2cos_3dx-of-abc"
        );
    }

    #[test]
    fn times_have_a_dot_before_the_seconds() {
        let time = crate::model::Time {
            seconds: 0,
            offset: 90,
        };
        assert_eq!(log_time(time), "1970-01-01 01:30.00");
    }
}
