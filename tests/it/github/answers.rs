//! What our GitHub answers, in GitHub's JSON.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use datakit::forge::*;
use serde_json::{Value, json};

use super::schema::{GITHUB, overlay, sample};

/// Makes something of this schema, with parts of it as given.
pub fn made(schema: &'static str, with: Value) -> Value {
    static SAMPLES: LazyLock<Mutex<BTreeMap<&'static str, Value>>> = LazyLock::new(Mutex::default);
    let mut samples = SAMPLES.lock().unwrap();
    let known = samples
        .entry(schema)
        .or_insert_with(|| sample(&GITHUB["schemas"][schema]));
    let mut value = known.clone();
    drop(samples);
    overlay(&mut value, with);
    value
}

pub fn user(login: &str) -> Value {
    made("simple-user", json!({ "login": login }))
}

pub fn repository(repo: &Repo, id: u64, archived: bool) -> Value {
    made(
        "minimal-repository",
        json!({
            "id": id,
            "name": repo.name(),
            "full_name": repo.to_string(),
            "owner": user(repo.user()),
            "archived": archived,
        }),
    )
}

/// As a delivery or an installation names it.
pub fn whole_repository(repo: &Repo, id: u64) -> Value {
    made(
        "repository",
        json!({
            "id": id,
            "name": repo.name(),
            "full_name": repo.to_string(),
            "owner": user(repo.user()),
        }),
    )
}

/// `whole`: as it is asked for by number, not in a list.
pub fn pull(repo: &Repo, number: u64, pr: &Pr, whole: bool) -> Value {
    let schema = if whole {
        "pull-request"
    } else {
        "pull-request-simple"
    };
    let labels: Vec<Value> = pr
        .labels
        .iter()
        .enumerate()
        .map(|(id, name)| label(id, name))
        .collect();
    let body = pr
        .comments
        .first()
        .map(|comment| String::from_utf8_lossy(&comment.body));
    let side = |name: &str, sha: &str, repo: Option<&str>| {
        let repo = repo.and_then(|repo| repo.parse::<Repo>().ok());
        json!({
            "label": name,
            "ref": name,
            "sha": sha,
            "user": user("somebody"),
            "repo": repo.map(|repo| whole_repository(&repo, 1)),
        })
    };
    let mut made = made(
        schema,
        json!({
            "number": number,
            "state": pr.state.word(),
            "title": pr.title,
            "body": body,
            "user": user(&pr.owner),
            "draft": pr.draft,
            "merged_at": pr.merged.then_some("2026-01-01T00:00:00Z"),
            "closed_at": pr.closed_at,
            "labels": labels,
        }),
    );
    let base = repo.to_string();
    made["head"] = side("topic", &pr.head, pr.head_repo.as_deref());
    made["base"] = side(&pr.base, "0000", Some(&base));
    made
}

fn label(id: usize, name: &str) -> Value {
    json!({
        "id": id,
        "node_id": "text",
        "url": "https://example.org/",
        "name": name,
        "description": "",
        "color": "ffffff",
        "default": false,
    })
}

pub fn comment(repo: &Repo, number: u64, comment: &Comment) -> Value {
    made(
        "issue-comment",
        json!({
            "id": comment.id,
            "issue_url": format!("https://api.github.com/repos/{repo}/issues/{number}"),
            "user": user(&comment.user),
            "body": String::from_utf8_lossy(&comment.body),
        }),
    )
}

pub fn review(id: u64, who: &str, state: &str) -> Value {
    made(
        "pull-request-review",
        json!({ "id": id, "user": user(who), "state": state }),
    )
}

pub fn reference(name: &RefName, kind: &str, sha: &str) -> Value {
    made(
        "git-ref",
        json!({ "ref": format!("refs/{name}"), "object": { "type": kind, "sha": sha } }),
    )
}

pub fn tag(sha: &str, kind: &str, target: &str) -> Value {
    made(
        "git-tag",
        json!({ "sha": sha, "object": { "type": kind, "sha": target } }),
    )
}

/// One in the listing of all.
pub fn tagged(name: &str, commit: &str) -> Value {
    made(
        "tag",
        json!({ "name": name, "commit": { "sha": commit, "url": "https://example.org/" } }),
    )
}

pub fn status(id: u64, context: &Context, status: &Status) -> Value {
    json!({
        "url": "https://example.org/",
        "avatar_url": null,
        "id": id,
        "node_id": "text",
        "state": status.state.word(),
        "description": status.description,
        "target_url": status.target_url,
        "context": context.to_string(),
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    })
}

pub fn combined(repo: &Repo, sha: &str, statuses: Vec<Value>) -> Value {
    made(
        "combined-commit-status",
        json!({
            "state": "pending",
            "sha": sha,
            "total_count": statuses.len(),
            "statuses": statuses,
            "repository": repository(repo, 1, false),
        }),
    )
}
