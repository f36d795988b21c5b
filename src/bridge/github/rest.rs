//! Which calls of GitHub's REST API do what the bridge asks for.
//!
//! Sources: docs.github.com/rest: pulls, pulls/reviews, issues/comments,
//! git/refs, git/tags, commits/statuses, checks/runs, repos.
//!
//! A listing of the whole repository is asked for where it takes fewer calls
//! than asking of one thing after the other: comments and annotated tags have
//! one. Reviews and statuses have none: they are a call for each pull request
//! and each head.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Check, Error, Result};
use super::auth::Auth;
use super::http::{Http, Of, PAGE, PER_PAGE, parse};
use super::plan::{Push, marked};
use super::wire;
use crate::forge::{Comment, Context, Pr, RefName, Repo, Sha, Status};

/// Pull requests whose comments are asked for at the same time.
const AT_ONCE: usize = 4;

/// A tag may be of a tag, and so on: so many are looked into.
const TAGS: usize = 5;

/// The folder of notes for what is read.
const READ: &str = ".http";

/// A call that changes something: the path begins with `/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
}

/// Returns the call a change needs. A ref that is not there yet needs another
/// one; that is seen by the answer.
pub fn call(push: &Push, force_refs: bool) -> Call {
    let (method, path, body) = match push {
        Push::Pr(repo, number, pr, parts) => {
            let mut body = json!({});
            if parts.title {
                body["title"] = json!(pr.title);
            }
            if parts.state {
                body["state"] = json!(pr.state.word());
            }
            if parts.base {
                body["base"] = json!(pr.base);
            }
            let path = format!("/repos/{repo}/pulls/{number}");
            (Method::PATCH, path, Some(body))
        }
        Push::Comment(repo, number, comment) => {
            let text = marked(repo, *number, comment);
            let body = json!({ "body": String::from_utf8_lossy(&text) });
            let path = format!("/repos/{repo}/issues/{number}/comments");
            (Method::POST, path, Some(body))
        }
        Push::Edit(repo, _, comment) => {
            let body = json!({ "body": String::from_utf8_lossy(&comment.body) });
            let path = format!("/repos/{repo}/issues/comments/{}", comment.id);
            (Method::PATCH, path, Some(body))
        }
        Push::Status(repo, sha, context, status) => {
            let body = wire::Status::write(context, status);
            let path = format!("/repos/{repo}/statuses/{sha}");
            (Method::POST, path, Some(body))
        }
        Push::SetRef(repo, name, sha) => {
            let body = json!({ "sha": sha, "force": force_refs });
            let path = format!("/repos/{repo}/git/refs/{}", segments(name));
            (Method::PATCH, path, Some(body))
        }
        Push::RemoveRef(repo, name) => {
            let path = format!("/repos/{repo}/git/refs/{}", segments(name));
            (Method::DELETE, path, None)
        }
    };
    Call { method, path, body }
}

#[async_trait::async_trait]
impl Api for Http {
    fn begin(&self, repo: &Repo) {
        self.begin_reading(repo);
    }

    fn finish(&self, repo: &Repo) {
        self.finish_reading(repo);
    }

    async fn repositories(&self, account: &str) -> Result<Vec<Repo>> {
        let of = Of::Account(account);
        let found: Vec<wire::Repository> = match self.auth {
            Auth::App(_) => {
                let mut found = Vec::new();
                let take = |page: wire::Repositories| {
                    found.extend(page.repositories);
                    ControlFlow::Continue(())
                };
                let path = format!("/installation/repositories?{PAGE}");
                self.pages(of, READ, &path, take).await?;
                found
            }
            Auth::Anonymous | Auth::Token(_) => {
                let path = format!("/orgs/{account}/repos?{PAGE}");
                match self.list(of, READ, &path).await {
                    // A user is no organisation.
                    Err(Error::Missing(_)) => {
                        let path = format!("/users/{account}/repos?{PAGE}");
                        self.list(of, READ, &path).await?
                    }
                    listed => listed?,
                }
            }
        };
        let ours = |repo: &Repo| repo.user().eq_ignore_ascii_case(account);
        let open = found.iter().filter(|repository| !repository.archived);
        Ok(open
            .filter_map(wire::Repository::repo)
            .filter(ours)
            .collect())
    }

    async fn pulls(&self, repo: &Repo) -> Result<BTreeMap<u64, Pr>> {
        use futures_util::{StreamExt as _, TryStreamExt as _};
        let path = format!("/repos/{repo}/pulls?state=open&{PAGE}");
        let pulls: Vec<wire::Pull> = self.list(Of::Repo(repo), READ, &path).await?;
        let mut said = self.comments(repo, pulls.len()).await?;
        let whole = pulls.into_iter().map(|pull| {
            let said = said.as_mut();
            let said = said.map(|said| said.remove(&pull.number).unwrap_or_default());
            async move {
                let pr = self.fill(repo, pull.number, pull.read(), said).await?;
                Ok((pull.number, pr))
            }
        });
        futures_util::stream::iter(whole)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn pull(&self, repo: &Repo, number: u64) -> Result<Option<Pr>> {
        let path = format!("/repos/{repo}/pulls/{number}");
        match self.get::<wire::Pull>(Of::Repo(repo), READ, &path).await {
            Ok(pull) => Ok(Some(self.complete(repo, number, pull.read()).await?)),
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn complete(&self, repo: &Repo, number: u64, pr: Pr) -> Result<Pr> {
        self.fill(repo, number, pr, None).await
    }

    async fn refs(&self, repo: &Repo) -> Result<BTreeMap<RefName, Sha>> {
        let mut found = BTreeMap::new();
        for kind in ["heads", "tags"] {
            let path = format!("/repos/{repo}/git/matching-refs/{kind}/");
            let refs = self.list(Of::Repo(repo), READ, &path).await;
            let refs: Vec<wire::Reference> = match refs {
                // A repository without a commit.
                Err(Error::Rejected(why)) if why.contains("409 Conflict") => Vec::new(),
                refs => refs?,
            };
            let tagged = self.tagged(repo, &refs).await?;
            for reference in refs {
                let Some(name) = reference.name() else {
                    tracing::warn!(target: "bridge", "{repo}: no tree can hold {:?}", reference.full);
                    continue;
                };
                let sha = match tagged.get(&reference.full) {
                    Some(sha) => Some(sha.clone()),
                    None => self.peel(repo, reference.object).await?,
                };
                found.extend(sha.map(|sha| (name, sha)));
            }
        }
        Ok(found)
    }

    async fn reference(&self, repo: &Repo, name: &RefName) -> Result<Option<Sha>> {
        let path = format!("/repos/{repo}/git/ref/{}", segments(name));
        match self
            .get::<wire::Reference>(Of::Repo(repo), READ, &path)
            .await
        {
            Ok(reference) => self.peel(repo, reference.object).await,
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn statuses(&self, repo: &Repo, sha: &str) -> Result<BTreeMap<Context, Status>> {
        let path = format!("/repos/{repo}/commits/{sha}/status?{PAGE}");
        let mut found = BTreeMap::new();
        let take = |combined: wire::Combined| {
            found.extend(combined.statuses.into_iter().filter_map(wire::Status::read));
            ControlFlow::Continue(())
        };
        self.pages(Of::Repo(repo), READ, &path, take).await?;
        Ok(found)
    }

    async fn push(&self, push: &Push) -> Result<Option<Comment>> {
        let repo = push.repo();
        let of = Of::Repo(repo);
        let Call { method, path, body } = call(push, self.settings.force_refs);
        let sent = self.change(of, method, &path, body.as_ref()).await;
        // What GitHub says where there is no such ref.
        let absent = |error: &Error| match error {
            Error::Missing(_) => true,
            Error::Rejected(why) => why.contains("does not exist"),
            _ => false,
        };
        match (push, sent) {
            (Push::SetRef(_, name, sha), Err(error)) if absent(&error) => {
                let name = format!("refs/{}", String::from_utf8_lossy(name.as_bytes()));
                let body = json!({ "ref": name, "sha": sha });
                let path = format!("/repos/{repo}/git/refs");
                self.change(of, Method::POST, &path, Some(&body)).await?;
                Ok(None)
            }
            (Push::RemoveRef(..), Err(error)) if absent(&error) => Ok(None),
            (Push::Comment(..) | Push::Edit(..), Ok(made)) => {
                let made: wire::IssueComment = parse(&path, &made)?;
                Ok(Some(made.read()))
            }
            (_, sent) => sent.map(|_| None),
        }
    }

    fn makes_checks(&self) -> bool {
        matches!(self.auth, Auth::App(_))
    }

    async fn check(&self, check: &Check<'_>, run: Option<u64>) -> Result<u64> {
        let repo = check.repo;
        let body = wire::check_run(check, run.is_none());
        let (method, path) = match run {
            Some(run) => (Method::PATCH, format!("/repos/{repo}/check-runs/{run}")),
            None => (Method::POST, format!("/repos/{repo}/check-runs")),
        };
        let made = self
            .change(Of::Repo(repo), method, &path, Some(&body))
            .await?;
        Ok(parse::<wire::Numbered>(&path, &made)?.id)
    }
}

impl Http {
    /// Completes a pull request. `said` are its comments, where they are known.
    async fn fill(
        &self,
        repo: &Repo,
        number: u64,
        pr: Pr,
        said: Option<Vec<wire::IssueComment>>,
    ) -> Result<Pr> {
        let of = Of::Repo(repo);
        let comments = async {
            match said {
                Some(said) => Ok(said),
                None => {
                    let path = format!("/repos/{repo}/issues/{number}/comments?{PAGE}");
                    self.list(of, READ, &path).await
                }
            }
        };
        let reviews = format!("/repos/{repo}/pulls/{number}/reviews?{PAGE}");
        let (comments, reviews) = futures_util::try_join!(comments, self.list(of, READ, &reviews))?;
        Ok(wire::complete(pr, comments, reviews))
    }

    /// Returns all comments of a repository by the number of what they are
    /// about, where that takes no more calls than asking each of so many pull
    /// requests.
    async fn comments(
        &self,
        repo: &Repo,
        pulls: usize,
    ) -> Result<Option<BTreeMap<u64, Vec<wire::IssueComment>>>> {
        if pulls < 2 {
            return Ok(None);
        }
        let path = format!("/repos/{repo}/issues/comments?{PAGE}");
        let listed = self.list_short(Of::Repo(repo), READ, &path, pulls).await?;
        let Some(listed) = listed else {
            return Ok(None);
        };
        let mut said: BTreeMap<u64, Vec<wire::IssueComment>> = BTreeMap::new();
        for wire::RepoComment { issue_url, comment } in listed {
            let number = issue_url
                .rsplit('/')
                .next()
                .and_then(|end| end.parse().ok());
            let odd = || Error::Unreachable(format!("{path}: not understood: {issue_url}"));
            said.entry(number.ok_or_else(odd)?)
                .or_default()
                .push(comment);
        }
        Ok(Some(said))
    }

    /// Returns the commits of annotated tags by the tags' whole names, where
    /// listing all tags takes fewer calls than looking into each of these.
    async fn tagged(&self, repo: &Repo, refs: &[wire::Reference]) -> Result<BTreeMap<String, Sha>> {
        let annotated = refs.iter().filter(|one| one.object.kind == "tag").count();
        if annotated <= refs.len().div_ceil(PER_PAGE) {
            return Ok(BTreeMap::new());
        }
        let path = format!("/repos/{repo}/tags?{PAGE}");
        let tags: Vec<wire::Tagged> = self.list(Of::Repo(repo), READ, &path).await?;
        let tags = tags.into_iter();
        Ok(tags
            .map(|tag| (format!("refs/tags/{}", tag.name), tag.commit.sha))
            .collect())
    }

    /// Returns the commit an object is, or a tag of it; nothing for others.
    async fn peel(&self, repo: &Repo, mut object: wire::Object) -> Result<Option<Sha>> {
        for _ in 0..TAGS {
            if object.kind != "tag" {
                break;
            }
            let path = format!("/repos/{repo}/git/tags/{}", object.sha);
            object = match self.get::<wire::Tag>(Of::Repo(repo), READ, &path).await {
                Ok(tag) => tag.object,
                Err(Error::Missing(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        Ok((object.kind == "commit").then_some(object.sha))
    }
}

/// A ref's name as a part of a URL.
fn segments(name: &RefName) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let escaped = |byte: &u8| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.as_bytes().iter().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let name = RefName::new("heads/fix#1+ü").expect("legal");
        assert_eq!(segments(&name), "heads/fix%231%2B%C3%BC");
    }
}
