//! Which calls of GitHub's REST API do what the bridge asks for.
//!
//! Sources: docs.github.com/rest: pulls, pulls/reviews, issues/comments,
//! git/refs, git/tags, commits/statuses, checks/runs, repos.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Check, Error, Result};
use super::auth::Auth;
use super::http::{Http, Of, PAGE, parse};
use super::plan::{Push, marked};
use super::wire;
use crate::forge::{Comment, Context, Pr, RefName, Repo, Sha, Status};

/// Pull requests whose comments are asked for at the same time.
const AT_ONCE: usize = 4;

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
        let whole = pulls.into_iter().map(|pull| async move {
            let pr = self.complete(repo, pull.number, pull.read()).await?;
            Ok((pull.number, pr))
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
        let comments = format!("/repos/{repo}/issues/{number}/comments?{PAGE}");
        let reviews = format!("/repos/{repo}/pulls/{number}/reviews?{PAGE}");
        let of = Of::Repo(repo);
        let (comments, reviews) = futures_util::try_join!(
            self.list(of, READ, &comments),
            self.list(of, READ, &reviews)
        )?;
        Ok(wire::complete(pr, comments, reviews))
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
            for reference in refs {
                let Some(name) = reference.name() else {
                    tracing::warn!(target: "bridge", "{repo}: no tree can hold {:?}", reference.full);
                    continue;
                };
                if let Some(sha) = self.peel(repo, reference.object).await? {
                    found.insert(name, sha);
                }
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
            (Push::Comment(..), Ok(made)) => {
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
    /// Returns the commit an object is, or a tag of it; nothing for others.
    async fn peel(&self, repo: &Repo, object: wire::Object) -> Result<Option<Sha>> {
        match object.kind.as_str() {
            "commit" => Ok(Some(object.sha)),
            "tag" => {
                let path = format!("/repos/{repo}/git/tags/{}", object.sha);
                match self.get::<wire::Tag>(Of::Repo(repo), READ, &path).await {
                    Ok(tag) => Ok((tag.object.kind == "commit").then_some(tag.object.sha)),
                    Err(Error::Missing(_)) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(None),
        }
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
