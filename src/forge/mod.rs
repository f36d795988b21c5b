//! GitHub's nouns as dk keeps them in a branch; shared by the bridges and the
//! CI.
//!
//! A [`Snapshot`] is what one side says at one moment: the branch ([`layout`]),
//! or the forge. What stays true in it:
//!
//! - a pull request, ref or status implies its commit and its repository;
//! - elements with one [`Id`] are the same element, whatever their content, so
//!   a difference between two snapshots names each element once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::TreePath;

pub mod layout;

/// A repository of a forge: `USER/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repo {
    user: String,
    name: String,
}

/// Why a text names no repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a repository's name: it should be USER/REPOSITORY")]
pub struct BadRepo(String);

impl Repo {
    /// GitHub allows letters, digits, `-`, `_` and `.` in both.
    pub fn new(user: &str, name: &str) -> Option<Self> {
        let legal = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && part.len() <= 200 && part.chars().all(known)
        };
        // What no tree may hold is no name either (`.`, `..`, `.git`).
        let stored = |part: &str| TreePath::new(part).is_ok();
        let good = [user, name]
            .into_iter()
            .all(|part| legal(part) && stored(part));
        good.then(|| Self {
            user: user.into(),
            name: name.into(),
        })
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user, self.name)
    }
}

impl std::str::FromStr for Repo {
    type Err = BadRepo;

    fn from_str(text: &str) -> Result<Self, BadRepo> {
        let found = text
            .split_once('/')
            .and_then(|(user, name)| Self::new(user, name));
        found.ok_or_else(|| BadRepo(text.into()))
    }
}

/// A commit as the forge names it: hexadecimal digits, kept as they came.
pub type Sha = String;

/// A ref without `refs/`: `heads/master`.
pub type RefName = TreePath;

/// A status' context, its parts as a path: `ci/build`. GitHub's missing
/// context is `default`.
pub type Context = TreePath;

/// Returns the path of a context as GitHub writes it: empty parts vanish, and
/// none at all is `default`. Nothing where a tree could not hold it.
pub fn context(text: &str) -> Option<Context> {
    match TreePath::new(text) {
        Ok(path) if path.is_root() => TreePath::new("default").ok(),
        Ok(path) => Some(path),
        Err(_) => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrState {
    Open,
    Closed,
}

impl PrState {
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// A comment of a pull request; number 0 of each is its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// The forge's id; 0 for the description.
    pub id: u64,
    pub user: String,
    /// Byte for byte.
    pub body: Vec<u8>,
}

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pr {
    pub head: Sha,
    /// Where `head` lies: absent or another repository means a fork.
    pub head_repo: Option<String>,
    pub state: PrState,
    pub title: String,
    pub base: String,
    /// The author's login.
    pub owner: String,
    pub draft: bool,
    pub merged: bool,
    /// When it was closed, as the forge writes it (RFC 3339).
    pub closed_at: Option<String>,
    /// In order of their names.
    pub labels: Vec<String>,
    /// `approved` or `changes_requested`, where somebody said so.
    pub review: Option<String>,
    pub comments: Vec<Comment>,
    /// What somebody wants to say there and is not posted yet, in the order of
    /// the folders that hold them.
    pub drafts: Vec<Vec<u8>>,
}

impl Pr {
    /// A pull request as little as the branch must say of it.
    pub fn new(head: impl Into<Sha>, state: PrState, title: &str, base: &str, owner: &str) -> Self {
        Self {
            head: head.into(),
            head_repo: None,
            state,
            title: title.trim().into(),
            base: base.into(),
            owner: owner.into(),
            draft: false,
            merged: false,
            closed_at: None,
            labels: Vec::new(),
            review: None,
            comments: Vec::new(),
            drafts: Vec::new(),
        }
    }

    /// Tells whether its commits come from another repository than `repo`.
    pub fn is_fork(&self, repo: &Repo) -> bool {
        self.head_repo.as_deref() != Some(repo.to_string().as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusState {
    Error,
    Failure,
    Pending,
    Success,
}

impl StatusState {
    pub const ALL: [Self; 4] = [Self::Error, Self::Failure, Self::Pending, Self::Success];

    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Failure => "failure",
            Self::Pending => "pending",
            Self::Success => "success",
        }
    }
}

/// Characters of a description that GitHub takes.
pub const DESCRIPTION: usize = 140;

/// What somebody says of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: StatusState,
    pub description: Option<String>,
    pub target_url: Option<String>,
}

impl Status {
    /// Descriptions are trimmed, and cut to [`DESCRIPTION`] bytes where a
    /// character ends; what is empty is none.
    pub fn new(state: StatusState, description: Option<&str>, target_url: Option<&str>) -> Self {
        let text = |text: &str| {
            let text = text.trim();
            let mut end = DESCRIPTION.min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text[..end].trim().to_owned()
        };
        let some = |text: String| (!text.is_empty()).then_some(text);
        Self {
            state,
            description: description.map(text).and_then(some),
            target_url: target_url.map(|url| url.trim().to_owned()).and_then(some),
        }
    }
}

/// What makes an element the same element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    Repo(Repo),
    Commit(Repo, Sha),
    Pr(Repo, u64),
    Ref(Repo, RefName),
    Status(Repo, Sha, Context),
}

impl Id {
    pub fn repo(&self) -> &Repo {
        match self {
            Self::Repo(repo)
            | Self::Commit(repo, _)
            | Self::Pr(repo, _)
            | Self::Ref(repo, _)
            | Self::Status(repo, ..) => repo,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(repo) => write!(f, "{repo}"),
            Self::Commit(repo, sha) => write!(f, "{repo} commit {sha}"),
            Self::Pr(repo, number) => write!(f, "{repo} pull request {number}"),
            Self::Ref(repo, name) => write!(f, "{repo} {name}"),
            Self::Status(repo, sha, context) => write!(f, "{repo} status {context} of {sha}"),
        }
    }
}

/// What one side says at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub repos: BTreeSet<Repo>,
    pub commits: BTreeSet<(Repo, Sha)>,
    pub prs: BTreeMap<(Repo, u64), Pr>,
    pub refs: BTreeMap<(Repo, RefName), Sha>,
    pub statuses: BTreeMap<(Repo, Sha, Context), Status>,
}

/// How one snapshot differs from an older one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What is new or has other content, with what it implies.
    pub updated: Snapshot,
    pub removed: BTreeSet<Id>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.updated == Snapshot::default()
    }
}

impl Snapshot {
    pub fn add_repo(&mut self, repo: &Repo) {
        self.repos.insert(repo.clone());
    }

    pub fn add_commit(&mut self, repo: &Repo, sha: &str) {
        self.add_repo(repo);
        self.commits.insert((repo.clone(), sha.into()));
    }

    pub fn add_pr(&mut self, repo: &Repo, number: u64, pr: Pr) {
        self.add_commit(repo, &pr.head);
        self.prs.insert((repo.clone(), number), pr);
    }

    pub fn add_ref(&mut self, repo: &Repo, name: &RefName, head: Sha) {
        self.add_commit(repo, &head);
        self.refs.insert((repo.clone(), name.clone()), head);
    }

    pub fn add_status(&mut self, repo: &Repo, sha: &str, context: &Context, status: Status) {
        self.add_commit(repo, sha);
        let key = (repo.clone(), sha.into(), context.clone());
        self.statuses.insert(key, status);
    }

    /// Takes out one element. A repository goes with all that is in it, a
    /// commit with its statuses.
    pub fn remove(&mut self, id: &Id) {
        match id {
            Id::Repo(repo) => {
                self.repos.remove(repo);
                self.commits.retain(|(of, _)| of != repo);
                self.prs.retain(|(of, _), _| of != repo);
                self.refs.retain(|(of, _), _| of != repo);
                self.statuses.retain(|(of, ..), _| of != repo);
            }
            Id::Commit(repo, sha) => {
                self.commits.remove(&(repo.clone(), sha.clone()));
                self.statuses
                    .retain(|(of, at, _), _| (of, at) != (repo, sha));
            }
            Id::Pr(repo, number) => {
                self.prs.remove(&(repo.clone(), *number));
            }
            Id::Ref(repo, name) => {
                self.refs.remove(&(repo.clone(), name.clone()));
            }
            Id::Status(repo, sha, context) => {
                let key = (repo.clone(), sha.clone(), context.clone());
                self.statuses.remove(&key);
            }
        }
    }

    /// Returns the part that is about one repository.
    pub fn of(&self, repo: &Repo) -> Self {
        let mut part = self.clone();
        for other in &self.repos {
            if other != repo {
                part.remove(&Id::Repo(other.clone()));
            }
        }
        part
    }

    /// Returns the commit an element implies.
    fn commit_of(&self, id: &Id) -> Option<(Repo, Sha)> {
        match id {
            Id::Repo(_) => None,
            Id::Commit(repo, sha) | Id::Status(repo, sha, _) => Some((repo.clone(), sha.clone())),
            Id::Pr(repo, number) => {
                let pr = self.prs.get(&(repo.clone(), *number))?;
                Some((repo.clone(), pr.head.clone()))
            }
            Id::Ref(repo, name) => {
                let head = self.refs.get(&(repo.clone(), name.clone()))?;
                Some((repo.clone(), head.clone()))
            }
        }
    }

    /// Forgets those of `commits` that nothing names any more.
    fn forget(&mut self, commits: BTreeSet<(Repo, Sha)>) {
        for (repo, sha) in commits {
            let first = (repo.clone(), sha.clone(), TreePath::root());
            let status = self.statuses.range(first..).next();
            let named = status.is_some_and(|((of, at, _), _)| (of, at) == (&repo, &sha))
                || self
                    .prs
                    .iter()
                    .any(|((of, _), pr)| *of == repo && pr.head == sha)
                || self
                    .refs
                    .iter()
                    .any(|((of, _), head)| *of == repo && *head == sha);
            if !named {
                self.commits.remove(&(repo, sha));
            }
        }
    }

    /// Forgets commits that nothing names any more: no pull request, no ref and
    /// no status.
    pub fn forget_commits(&mut self) {
        let mut named: BTreeSet<(Repo, Sha)> = BTreeSet::new();
        for ((repo, _), pr) in &self.prs {
            named.insert((repo.clone(), pr.head.clone()));
        }
        for ((repo, _), head) in &self.refs {
            named.insert((repo.clone(), head.clone()));
        }
        for (repo, sha, _) in self.statuses.keys() {
            named.insert((repo.clone(), sha.clone()));
        }
        self.commits.retain(|commit| named.contains(commit));
    }

    /// Keeps what a forge goes on about: the pull requests that `keep` says
    /// (open ones are always kept), all refs, and the statuses of their heads.
    pub fn prune(&mut self, keep: impl Fn(&Repo, u64, &Pr) -> bool) {
        self.prs
            .retain(|(repo, number), pr| pr.state == PrState::Open || keep(repo, *number, pr));
        let mut heads: BTreeSet<(Repo, Sha)> = BTreeSet::new();
        for ((repo, _), pr) in &self.prs {
            heads.insert((repo.clone(), pr.head.clone()));
        }
        for ((repo, _), head) in &self.refs {
            heads.insert((repo.clone(), head.clone()));
        }
        self.statuses
            .retain(|(repo, sha, _), _| heads.contains(&(repo.clone(), sha.clone())));
        self.commits.retain(|commit| heads.contains(commit));
    }

    /// Returns how this differs from an older snapshot.
    pub fn since(&self, old: &Self) -> Difference {
        let mut difference = Difference::default();
        let updated = &mut difference.updated;
        for repo in self.repos.difference(&old.repos) {
            updated.add_repo(repo);
        }
        for (repo, sha) in self.commits.difference(&old.commits) {
            updated.add_commit(repo, sha);
        }
        for ((repo, number), pr) in changed(&self.prs, &old.prs) {
            updated.add_pr(repo, *number, pr.clone());
        }
        for ((repo, name), head) in changed(&self.refs, &old.refs) {
            updated.add_ref(repo, name, head.clone());
        }
        for ((repo, sha, context), status) in changed(&self.statuses, &old.statuses) {
            updated.add_status(repo, sha, context, status.clone());
        }
        let removed = &mut difference.removed;
        for repo in old.repos.difference(&self.repos) {
            removed.insert(Id::Repo(repo.clone()));
        }
        for (repo, sha) in old.commits.difference(&self.commits) {
            removed.insert(Id::Commit(repo.clone(), sha.clone()));
        }
        for (repo, number) in gone(&self.prs, &old.prs) {
            removed.insert(Id::Pr(repo.clone(), *number));
        }
        for (repo, name) in gone(&self.refs, &old.refs) {
            removed.insert(Id::Ref(repo.clone(), name.clone()));
        }
        for (repo, sha, context) in gone(&self.statuses, &old.statuses) {
            removed.insert(Id::Status(repo.clone(), sha.clone(), context.clone()));
        }
        difference
    }

    /// Brings in a difference: what is removed first, then what is updated.
    pub fn apply(&mut self, difference: &Difference) {
        for id in &difference.removed {
            self.remove(id);
        }
        self.merge(difference.updated.clone());
    }

    /// Brings in another snapshot, whose elements win.
    pub fn merge(&mut self, other: Self) {
        self.repos.extend(other.repos);
        self.commits.extend(other.commits);
        self.prs.extend(other.prs);
        self.refs.extend(other.refs);
        self.statuses.extend(other.statuses);
    }
}

fn changed<'a, K: Ord, V: PartialEq>(
    new: &'a BTreeMap<K, V>,
    old: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    new.iter()
        .filter(|(key, value)| old.get(key) != Some(value))
}

fn gone<'a, K: Ord, V>(
    new: &'a BTreeMap<K, V>,
    old: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    old.keys().filter(|key| !new.contains_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories() {
        for good in ["a/b", "moby/data.kit", "A-1/x_y"] {
            let repo: Repo = good.parse().expect(good);
            assert_eq!(repo.to_string(), good);
        }
        for bad in [
            "", "a", "a/", "/b", "a/b/c", "a b/c", "./x", "a/..", "a/.git", "ü/x",
        ] {
            assert!(bad.parse::<Repo>().is_err(), "{bad}");
        }
    }

    #[test]
    fn descriptions_are_cut_where_a_character_ends() {
        let long = "ü".repeat(80);
        let status = Status::new(StatusState::Success, Some(&long), Some("  "));
        assert_eq!(status.description.as_deref(), Some("ü".repeat(70).as_str()));
        assert_eq!(status.target_url, None);
        let padded = format!("  x{}", " ".repeat(200));
        let status = Status::new(StatusState::Error, Some(&padded), None);
        assert_eq!(status.description.as_deref(), Some("x"));
    }

    #[test]
    fn contexts_lose_their_empty_parts() {
        assert_eq!(context("a//b/").expect("legal").as_bytes(), b"a/b");
        assert_eq!(context("").expect("legal").as_bytes(), b"default");
        assert_eq!(context("a/../b"), None);
    }

    #[test]
    fn an_element_implies_its_commit_and_repository() {
        let repo: Repo = "test/test".parse().expect("legal");
        let mut old = Snapshot::default();
        old.add_pr(&repo, 1, Pr::new("foo", PrState::Open, "t", "master", "me"));
        assert_eq!(old.repos.len() + old.commits.len(), 2);
        let mut new = old.clone();
        new.add_pr(&repo, 1, Pr::new("bar", PrState::Open, "t", "master", "me"));
        new.forget_commits();
        let difference = new.since(&old);
        assert_eq!(
            difference.removed,
            [Id::Commit(repo.clone(), "foo".into())].into()
        );
        assert_eq!(difference.updated.prs.len(), 1);
        let mut again = old.clone();
        again.apply(&difference);
        assert_eq!(again, new);
        new.remove(&Id::Repo(repo));
        assert_eq!(new, Snapshot::default());
    }
}
