//! GitHub's JSON, as far as it is used: what is not named here is passed over.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::Check;
use crate::forge::{self, Comment, Context, Pr, PrState, RefName, Repo, Sha, StatusState, context};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    pub login: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Label {
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Repository {
    pub full_name: String,
    #[serde(default)]
    pub archived: bool,
}

/// What an App's installation may see.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Repositories {
    pub repositories: Vec<Repository>,
}

impl Repository {
    pub fn repo(&self) -> Option<Repo> {
        self.full_name.parse().ok()
    }
}

/// One end of a pull request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Side {
    pub sha: String,
    #[serde(rename = "ref")]
    pub name: String,
    /// None: its repository was deleted.
    pub repo: Option<Repository>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pull {
    pub number: u64,
    pub state: String,
    #[serde(default)]
    pub title: String,
    pub body: Option<String>,
    pub user: Option<User>,
    pub head: Side,
    pub base: Side,
    #[serde(default)]
    pub draft: Option<bool>,
    pub merged_at: Option<String>,
    pub closed_at: Option<String>,
    #[serde(default)]
    pub labels: Vec<Label>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IssueComment {
    pub id: u64,
    pub user: Option<User>,
    pub body: Option<String>,
}

/// A comment in the listing of a whole repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RepoComment {
    /// Ends with the number of the issue or pull request.
    pub issue_url: String,
    #[serde(flatten)]
    pub comment: IssueComment,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Review {
    pub user: Option<User>,
    #[serde(default)]
    pub state: String,
}

/// Whom GitHub names where an account was deleted.
const GHOST: &str = "ghost";

fn login(user: Option<&User>) -> String {
    user.map_or(GHOST, |user| &user.login).to_owned()
}

impl Pull {
    /// The pull request with its description, without what other calls tell.
    pub fn read(&self) -> Pr {
        let state = match self.state.as_str() {
            "open" => PrState::Open,
            _ => PrState::Closed,
        };
        let owner = login(self.user.as_ref());
        let mut pr = Pr::new(
            self.head.sha.clone(),
            state,
            &self.title,
            &self.base.name,
            &owner,
        );
        pr.head_repo = self.head.repo.as_ref().map(|repo| repo.full_name.clone());
        pr.draft = self.draft.unwrap_or_default();
        pr.merged = self.merged_at.is_some();
        pr.closed_at = self.closed_at.clone().filter(|_| state == PrState::Closed);
        let names = self.labels.iter().map(|label| label.name.trim().to_owned());
        pr.labels = names
            .filter(|name| !name.is_empty() && !name.contains('\n'))
            .collect();
        pr.labels.sort();
        pr.comments.push(Comment {
            id: 0,
            user: pr.owner.clone(),
            body: self.body.clone().unwrap_or_default().into_bytes(),
        });
        pr
    }
}

impl IssueComment {
    pub fn read(self) -> Comment {
        Comment {
            id: self.id,
            user: login(self.user.as_ref()),
            body: self.body.unwrap_or_default().into_bytes(),
        }
    }
}

/// Adds the comments below the description, and what reviews came to: the
/// latest of each reviewer counts.
pub fn complete(mut pr: Pr, comments: Vec<IssueComment>, reviews: Vec<Review>) -> Pr {
    pr.comments.truncate(1);
    pr.comments
        .extend(comments.into_iter().map(IssueComment::read));
    let mut latest = std::collections::BTreeMap::new();
    for review in reviews {
        let state = review.state.to_ascii_lowercase();
        if matches!(
            state.as_str(),
            "approved" | "changes_requested" | "dismissed"
        ) {
            latest.insert(login(review.user.as_ref()), state);
        }
    }
    let any = |state: &str| latest.values().any(|latest| latest == state);
    pr.review = ["changes_requested", "approved"]
        .into_iter()
        .find(|state| any(state))
        .map(Into::into);
    pr
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Object {
    pub sha: String,
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reference {
    #[serde(rename = "ref")]
    pub full: String,
    pub object: Object,
}

impl Reference {
    /// Its name without `refs/`; nothing where a tree cannot hold it.
    pub fn name(&self) -> Option<RefName> {
        ref_name(&self.full)
    }
}

/// Returns the name of a branch or tag without `refs/`.
pub fn ref_name(full: &str) -> Option<RefName> {
    let name = full.strip_prefix("refs/")?;
    let known = name.starts_with("heads/") || name.starts_with("tags/");
    RefName::new(name).ok().filter(|_| known)
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tag {
    pub object: Object,
}

/// A tag in the listing of all, with the commit it leads to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tagged {
    pub name: String,
    pub commit: Tip,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tip {
    pub sha: Sha,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Numbered {
    pub id: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Combined {
    pub statuses: Vec<Status>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub state: String,
    pub description: Option<String>,
    pub target_url: Option<String>,
    pub context: Option<String>,
}

impl Status {
    /// Nothing where its context cannot be kept in a tree.
    pub fn read(self) -> Option<(Context, forge::Status)> {
        let context = context(self.context.as_deref().unwrap_or_default())?;
        let known = StatusState::ALL
            .iter()
            .find(|known| known.word() == self.state);
        let status = forge::Status::new(
            known.copied().unwrap_or(StatusState::Failure),
            self.description.as_deref(),
            self.target_url.as_deref(),
        );
        Some((context, status))
    }

    pub fn write(context: &Context, status: &forge::Status) -> Value {
        let context = String::from_utf8_lossy(context.as_bytes());
        let mut body = json!({ "state": status.state.word(), "context": context });
        if let Some(description) = &status.description {
            body["description"] = json!(description);
        }
        if let Some(url) = &status.target_url {
            body["target_url"] = json!(url);
        }
        body
    }
}

/// A webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    pub id: u64,
    pub active: bool,
    #[serde(default)]
    pub events: Vec<String>,
    pub config: HookConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookConfig {
    pub url: Option<String>,
    pub content_type: Option<String>,
}

/// A try to deliver an event, as it is listed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    pub id: u64,
    /// The same for each try of one event.
    pub guid: String,
    pub status_code: u16,
    pub event: String,
}

/// A delivery with what it said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivered {
    pub request: Request,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub payload: Value,
}

/// The longest text a check run takes.
const SUMMARY: usize = 65_535;

/// Returns a status as a check run.
pub fn check_run(check: &Check<'_>, is_new: bool) -> Value {
    let status = check.status;
    let name = String::from_utf8_lossy(check.context.as_bytes());
    let (progress, conclusion) = match status.state {
        StatusState::Pending => ("in_progress", None),
        StatusState::Success => ("completed", Some("success")),
        StatusState::Failure | StatusState::Error => ("completed", Some("failure")),
    };
    let title = match (&status.description, status.state) {
        (Some(text), _) => text.as_str(),
        (None, state) => state.word(),
    };
    let mut summary = title.to_owned();
    if let Some(url) = &status.target_url {
        summary += &format!("\n\n[Log]({url})");
    }
    let mut end = SUMMARY.min(summary.len());
    while !summary.is_char_boundary(end) {
        end -= 1;
    }
    let mut body = json!({
        "name": name,
        "external_id": name,
        "status": progress,
        "output": { "title": title, "summary": &summary[..end] },
    });
    if is_new {
        body["head_sha"] = json!(check.sha);
    }
    if let Some(conclusion) = conclusion {
        body["conclusion"] = json!(conclusion);
    }
    // GitHub takes no other schemes.
    let web = |url: &&String| url.starts_with("https://") || url.starts_with("http://");
    if let Some(url) = status.target_url.as_ref().filter(web) {
        body["details_url"] = json!(url);
    }
    body
}
