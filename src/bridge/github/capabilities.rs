//! What the bridge may do with which part of GitHub.
//!
//! ```text
//! caps      = item *( "," item )
//! item      = resource ":" ops
//! resource  = "*" / "pr" / "commit" / "ref" / "webhook" / "comment" / "check"
//!           / "repo" [ "[" path "]" ] / "status" [ "[" path "]" ]
//! ops       = *( "r" / "w" / "x" )
//! ```
//!
//! `r` reads from GitHub, `w` writes to it, and `x` does both and lets the
//! branch win. An entry replaces the default `*`, it does not add to it. Of
//! entries with a path the longest that fits counts; one without a path fits
//! everything of its kind. Refs are never written through `*`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::forge::{Context, Repo};
use crate::model::TreePath;

/// Operations that are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ops {
    read: bool,
    write: bool,
    exclusive: bool,
}

impl Ops {
    pub const NONE: Self = Self {
        read: false,
        write: false,
        exclusive: false,
    };
    const READ: Self = Self {
        read: true,
        ..Self::NONE
    };

    /// Things may be read from GitHub.
    pub fn reads(self) -> bool {
        self.read || self.exclusive
    }

    /// Things may be written to GitHub.
    pub fn writes(self) -> bool {
        self.write || self.exclusive
    }

    /// Where both sides changed, the branch wins.
    pub fn excludes(self) -> bool {
        self.exclusive
    }
}

impl fmt::Display for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = [(self.exclusive, "x"), (self.read, "r"), (self.write, "w")];
        given
            .iter()
            .filter(|(given, _)| *given)
            .try_for_each(|(_, op)| f.write_str(op))
    }
}

/// What an operation is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    Pr,
    Commit,
    Ref,
    Webhook,
    Comment,
    Check,
    Repo(&'a Repo),
    Status(&'a Context),
}

/// The kinds without a path, in the order they are printed.
const PLAIN: [&str; 6] = ["check", "comment", "commit", "pr", "ref", "webhook"];

/// What is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    default: Ops,
    plain: BTreeMap<&'static str, Ops>,
    /// By path; the empty one fits all.
    repos: BTreeMap<Vec<String>, Ops>,
    statuses: BTreeMap<Vec<String>, Ops>,
}

impl Default for Capabilities {
    /// `*:r`
    fn default() -> Self {
        Self {
            default: Ops::READ,
            ..Self::none()
        }
    }
}

impl Capabilities {
    pub fn none() -> Self {
        Self {
            default: Ops::NONE,
            plain: BTreeMap::new(),
            repos: BTreeMap::new(),
            statuses: BTreeMap::new(),
        }
    }

    /// Returns what is allowed on a resource.
    pub fn on(&self, resource: &Resource<'_>) -> Ops {
        let plain = |name: &str| self.plain.get(name).copied();
        let longest = |entries: &BTreeMap<Vec<String>, Ops>, path: &[String]| {
            let fits = (0..=path.len()).rev();
            fits.filter_map(|length| entries.get(&path[..length]))
                .copied()
                .next()
        };
        let found = match resource {
            Resource::Pr => plain("pr"),
            Resource::Commit => plain("commit"),
            Resource::Webhook => plain("webhook"),
            Resource::Comment => plain("comment"),
            Resource::Check => plain("check"),
            // Moving a branch of somebody's repository is asked for by name.
            Resource::Ref => {
                return plain("ref").unwrap_or(Ops {
                    read: self.default.reads(),
                    ..Ops::NONE
                });
            }
            Resource::Repo(repo) => longest(&self.repos, &[repo.user().into(), repo.name().into()]),
            Resource::Status(context) => longest(&self.statuses, &steps(context)),
        };
        found.unwrap_or(self.default)
    }
}

fn steps(path: &TreePath) -> Vec<String> {
    path.steps()
        .map(|step| String::from_utf8_lossy(step).into_owned())
        .collect()
}

/// Why a text says no capabilities.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCapabilities {
    #[error("{0}: missing ':'")]
    Colon(String),
    #[error("{0}: invalid resource")]
    Resource(String),
    #[error("{0}: invalid operations: they are r, w and x")]
    Ops(String),
}

impl FromStr for Capabilities {
    type Err = BadCapabilities;

    fn from_str(text: &str) -> Result<Self, BadCapabilities> {
        let mut parsed = Self::none();
        let mut default = None;
        for item in text.split(',') {
            let colon = || BadCapabilities::Colon(item.into());
            let (resource, ops) = item.rsplit_once(':').ok_or_else(colon)?;
            let ops = parse_ops(ops).ok_or_else(|| BadCapabilities::Ops(item.into()))?;
            if resource == "*" {
                // The first of several counts.
                default.get_or_insert(ops);
                continue;
            }
            if let Some(name) = PLAIN.iter().find(|name| **name == resource) {
                parsed.plain.insert(name, ops);
                continue;
            }
            let bad = || BadCapabilities::Resource(item.into());
            let (kind, path) = match resource.split_once('[') {
                Some((kind, rest)) => (kind, rest.strip_suffix(']').ok_or_else(bad)?),
                None => (resource, ""),
            };
            let path = TreePath::new(path).map_err(|_| bad())?;
            match kind {
                "repo" => parsed.repos.insert(steps(&path), ops),
                "status" => parsed.statuses.insert(steps(&path), ops),
                _ => return Err(bad()),
            };
        }
        parsed.default = default.unwrap_or_default();
        Ok(parsed)
    }
}

fn parse_ops(text: &str) -> Option<Ops> {
    let mut ops = Ops::NONE;
    for op in text.chars() {
        match op {
            'r' => ops.read = true,
            'w' => ops.write = true,
            'x' => ops.exclusive = true,
            _ => return None,
        }
    }
    Some(ops)
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items = Vec::new();
        if self.default != Ops::NONE {
            items.push(format!("*:{}", self.default));
        }
        // Without a default an entry that allows nothing says nothing.
        let told = |ops: &Ops| self.default != Ops::NONE || *ops != Ops::NONE;
        for (name, ops) in self.plain.iter().filter(|(_, ops)| told(ops)) {
            items.push(format!("{name}:{ops}"));
        }
        for (kind, entries) in [("repo", &self.repos), ("status", &self.statuses)] {
            for (path, ops) in entries.iter().filter(|(_, ops)| told(ops)) {
                items.push(match path.as_slice() {
                    [] => format!("{kind}:{ops}"),
                    steps => format!("{kind}[{}]:{ops}", steps.join("/")),
                });
            }
        }
        if items.is_empty() {
            items.push("*:".into());
        }
        f.write_str(&items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::context;

    fn parse(text: &str) -> Capabilities {
        text.parse().expect(text)
    }

    /// `r`, `w` and `x` of a resource, as `yes` and `no`.
    fn allowed(caps: &str, resource: &Resource<'_>) -> (bool, bool, bool) {
        let ops = parse(caps).on(resource);
        (ops.reads(), ops.writes(), ops.excludes())
    }

    #[test]
    fn what_the_ancestor_asserts_holds() {
        let status = |path: &str| context(path).expect("legal");
        let foo = status("foo");
        assert_eq!(
            allowed("*:rw", &Resource::Status(&foo)),
            (true, true, false)
        );
        assert_eq!(allowed("*:w", &Resource::Pr), (false, true, false));
        assert_eq!(allowed("*:x", &Resource::Pr), (true, true, true));
        let repo: Repo = "samoht/test".parse().expect("legal");
        let caps = "repo[samoht]:w,repo:r";
        assert_eq!(allowed(caps, &Resource::Repo(&repo)), (false, true, false));
        let other: Repo = "other/test".parse().expect("legal");
        assert_eq!(allowed(caps, &Resource::Repo(&other)), (true, false, false));
        assert_eq!(allowed("*:w,pr:r", &Resource::Pr), (true, false, false));
        assert_eq!(allowed("*:w,pr:r", &Resource::Commit), (false, true, false));
        let caps = "*:r,status[foo]:x,webhook:w";
        assert!(allowed(caps, &Resource::Status(&foo)).2);
        let deep = status("foo/bar/0");
        assert!(allowed("status[foo/bar]:r", &Resource::Status(&deep)).0);
        let caps = "status[foo]:r,status[foo/bar]:w";
        assert!(allowed(caps, &Resource::Status(&deep)).1);
        assert!(
            allowed("*:r,status:rw", &Resource::Status(&deep)).1,
            "the bare form fits all"
        );
    }

    #[test]
    fn refs_are_written_by_name_only() {
        assert_eq!(allowed("*:rwx", &Resource::Ref), (true, false, false));
        assert_eq!(allowed("*:r,ref:rw", &Resource::Ref), (true, true, false));
    }

    #[test]
    fn texts_round_trip() {
        for text in [
            "*:rw",
            "repo:r,repo[samoht]:w",
            "*:r,status[foo/bar]:w",
            "pr:rw,status:w",
            "*:w,commit:,webhook:r",
            "*:",
            "*:r,webhook:rw,status[ci/datakit]:x",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(parse("pr:wrr").to_string(), "pr:rw");
        assert_eq!(parse("pr:,repo:r").to_string(), "repo:r");
        assert_eq!(parse("*:r,*:w").to_string(), "*:r");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("", ": missing ':'"),
            ("*:r,pr", "pr: missing ':'"),
            ("foo:r", "foo:r: invalid resource"),
            ("status[a:r", "status[a:r: invalid resource"),
            ("pr:q", "pr:q: invalid operations: they are r, w and x"),
        ] {
            assert_eq!(text.parse::<Capabilities>().unwrap_err().to_string(), why);
        }
    }
}
