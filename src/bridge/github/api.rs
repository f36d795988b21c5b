//! What the bridge asks of GitHub, in the words of the forge.
//!
//! A call answers for everything it is about or fails: a part of a listing is
//! never taken for the whole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::Push;
use crate::forge::{Comment, Context, Pr, RefName, Repo, Sha, Status};

/// Why GitHub did not answer as hoped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not there, or not for us to see.
    #[error("{0} is not there, or the token may not see it")]
    Missing(String),
    /// The token may not do it.
    #[error("GitHub refused: {0}")]
    Forbidden(String),
    /// What was sent is not accepted, and will not be.
    #[error("GitHub did not accept it: {0}")]
    Rejected(String),
    /// The budget is used up, for so long. It reads the same all the while.
    #[error("GitHub's rate limit is reached")]
    Limited(Duration),
    /// It can be tried again.
    #[error("GitHub cannot be reached: {0}")]
    Unreachable(String),
}

impl Error {
    /// Tells whether the same may go through another time.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Limited(_) | Self::Unreachable(_))
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// GitHub, or what stands in for it.
#[async_trait::async_trait]
pub trait Api: Send + Sync {
    /// Hears that a repository is going to be read from beginning to end.
    fn begin(&self, _: &Repo) {}

    /// Hears that it was: what is kept of it and was not asked for since
    /// [`Api::begin`] is of no use any more.
    fn finish(&self, _: &Repo) {}

    /// Returns the repositories of a user or an organisation that can change.
    async fn repositories(&self, account: &str) -> Result<Vec<Repo>>;

    /// Returns the open pull requests, with their comments.
    async fn pulls(&self, repo: &Repo) -> Result<BTreeMap<u64, Pr>>;

    /// Returns one pull request, with its comments; `None` where there is none.
    async fn pull(&self, repo: &Repo, number: u64) -> Result<Option<Pr>>;

    /// Completes a pull request an event told of with what events leave out:
    /// its comments and reviews.
    async fn complete(&self, repo: &Repo, number: u64, pr: Pr) -> Result<Pr>;

    /// Returns branches (`heads/…`) and tags (`tags/…`) with the commits they
    /// lead to; what leads to none is left out.
    async fn refs(&self, repo: &Repo) -> Result<BTreeMap<RefName, Sha>>;

    async fn reference(&self, repo: &Repo, name: &RefName) -> Result<Option<Sha>>;

    /// Returns the latest status of each context.
    async fn statuses(&self, repo: &Repo, sha: &str) -> Result<BTreeMap<Context, Status>>;

    /// Changes something there. Returns the comment that was made, if one was.
    async fn push(&self, push: &Push) -> Result<Option<Comment>>;

    /// Tells whether check runs may be made, which only an App may.
    fn makes_checks(&self) -> bool {
        false
    }

    /// Shows a status as a check run, a new one or `run`. Returns its id.
    async fn check(&self, check: &Check<'_>, run: Option<u64>) -> Result<u64>;
}

/// A status as it is to be shown as a check run.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    pub repo: &'a Repo,
    pub sha: &'a str,
    pub context: &'a Context,
    pub status: &'a Status,
}

/// Something that happened there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pull request as it is now; its comments are asked for.
    Pr(Repo, u64, Pr),
    /// Something about a pull request, which is asked for.
    Look(Repo, u64),
    /// A ref as it is now; `None`: deleted.
    Ref(Repo, RefName, Option<Sha>),
    Status(Repo, Sha, Context, Status),
    /// Somebody wants it built again: one context, or all shown as checks.
    Rebuild(Repo, Sha, Option<Context>),
    /// Something may have happened; the repository is to be read again.
    Again(Repo),
    /// A user or an organisation has other repositories than before.
    Account(String),
}

impl Event {
    /// The repository it is about, if it is about one.
    pub fn repo(&self) -> Option<&Repo> {
        match self {
            Self::Pr(repo, ..)
            | Self::Look(repo, _)
            | Self::Ref(repo, ..)
            | Self::Status(repo, ..)
            | Self::Rebuild(repo, ..)
            | Self::Again(repo) => Some(repo),
            Self::Account(_) => None,
        }
    }

    /// Returns what an event says that comes too late to be the present state.
    pub fn belated(self) -> Self {
        match self {
            Self::Pr(repo, ..)
            | Self::Look(repo, _)
            | Self::Ref(repo, ..)
            | Self::Status(repo, ..)
            | Self::Again(repo) => Self::Again(repo),
            Self::Rebuild(..) | Self::Account(_) => self,
        }
    }
}
