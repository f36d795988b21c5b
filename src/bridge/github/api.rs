//! What the bridge asks of GitHub, in the words of the forge.
//!
//! A call answers for everything it is about or fails: a part of a listing is
//! never taken for the whole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::Push;
use crate::forge::{Context, Pr, RefName, Repo, Sha, Status};

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
    /// The budget is used up.
    #[error("GitHub's rate limit is reached, for {} s", .0.as_secs())]
    Limited(Duration),
    /// It can be tried again.
    #[error("GitHub cannot be reached: {0}")]
    Unreachable(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// GitHub, or what stands in for it.
#[async_trait::async_trait]
pub trait Api: Send + Sync {
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

    /// Changes something there. Returns the number of what was made, if it has one.
    async fn push(&self, push: &Push) -> Result<Option<u64>>;
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
}

impl Event {
    pub fn repo(&self) -> &Repo {
        match self {
            Self::Pr(repo, ..)
            | Self::Look(repo, _)
            | Self::Ref(repo, ..)
            | Self::Status(repo, ..) => repo,
        }
    }
}
