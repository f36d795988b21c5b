//! GitHub's JSON, as far as it is used: what is not named here is passed over.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::forge::{self, Comment, Context, Pr, PrState, RefName, Repo, StatusState, context};

#[derive(Clone, Debug, Deserialize)]
pub struct User {
    pub login: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Label {
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Repository {
    pub full_name: String,
}

impl Repository {
    pub fn repo(&self) -> Option<Repo> {
        self.full_name.parse().ok()
    }
}

/// One end of a pull request.
#[derive(Clone, Debug, Deserialize)]
pub struct Side {
    pub sha: String,
    #[serde(rename = "ref")]
    pub name: String,
    /// None: its repository was deleted.
    pub repo: Option<Repository>,
}

#[derive(Clone, Debug, Deserialize)]
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
    #[serde(default)]
    pub labels: Vec<Label>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct IssueComment {
    pub id: u64,
    pub user: Option<User>,
    pub body: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
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

/// Adds the comments below the description, and what reviews came to: the
/// latest of each reviewer counts.
pub fn complete(mut pr: Pr, comments: Vec<IssueComment>, reviews: Vec<Review>) -> Pr {
    pr.comments.truncate(1);
    pr.comments
        .extend(comments.into_iter().map(|comment| Comment {
            id: comment.id,
            user: login(comment.user.as_ref()),
            body: comment.body.unwrap_or_default().into_bytes(),
        }));
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

#[derive(Clone, Debug, Deserialize)]
pub struct Object {
    pub sha: String,
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Clone, Debug, Deserialize)]
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

#[derive(Clone, Debug, Deserialize)]
pub struct Tag {
    pub object: Object,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Numbered {
    pub id: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Combined {
    pub statuses: Vec<Status>,
}

#[derive(Clone, Debug, Deserialize)]
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
