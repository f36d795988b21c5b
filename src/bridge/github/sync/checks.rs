//! Statuses shown as check runs, which only an App may make.
//!
//! A status that was told GitHub is owed a check run from then on; what each
//! run says is noted, so one that could not be told is told by a later sync,
//! and by a later process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Outcome, Sync};
use crate::bridge::github::api::Check;
use crate::bridge::github::capabilities::Resource;
use crate::bridge::github::notes::Notes;
use crate::bridge::github::plan::Plan;
use crate::forge::{Context, Id, Repo, Sha, Status, context};

/// The statuses shown as check runs.
#[derive(Default)]
pub(super) struct Shown(BTreeMap<(Repo, Sha, Context), Note>);

/// What is noted of one.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Note {
    context: String,
    /// The id of the run, once there is one.
    run: Option<u64>,
    /// State, description and URL it shows.
    says: Option<(String, Option<String>, Option<String>)>,
}

fn says(status: &Status) -> (String, Option<String>, Option<String>) {
    let state = status.state.word().to_owned();
    (state, status.description.clone(), status.target_url.clone())
}

fn place(key: &(Repo, Sha, Context)) -> String {
    let (repo, sha, context) = key;
    let context = String::from_utf8_lossy(context.as_bytes()).replace('%', "%25");
    format!("{repo}/.checks/{sha}/{}", context.replace('/', "%2F"))
}

impl Shown {
    pub fn read(notes: &Notes) -> Self {
        let mut shown = Self::default();
        for (path, text) in notes.all() {
            let steps: Vec<&str> = path.split('/').collect();
            let [user, name, ".checks", sha, _] = steps[..] else {
                continue;
            };
            let note: Option<Note> = serde_json::from_str(&text).ok();
            let key = note.and_then(|note| {
                let key = (
                    Repo::new(user, name)?,
                    sha.to_owned(),
                    context(&note.context)?,
                );
                Some((key, note))
            });
            shown.0.extend(key);
        }
        shown
    }

    /// Returns what is shown of a commit.
    pub fn of(&self, repo: &Repo, sha: &str) -> Vec<Context> {
        let all = self.0.keys();
        let of = all.filter(|(of, at, _)| of == repo && at == sha);
        of.map(|(.., context)| context.clone()).collect()
    }
}

impl Sync {
    /// From now on a status is shown.
    pub(super) fn owe(&mut self, repo: &Repo, sha: &str, context: &Context) {
        if self.api.makes_checks() && self.can(&Resource::Check).writes() {
            let key = (repo.clone(), sha.to_owned(), context.clone());
            self.checks.0.entry(key).or_insert_with(|| Note {
                context: String::from_utf8_lossy(context.as_bytes()).into_owned(),
                ..Note::default()
            });
        }
    }

    /// Brings the check runs up to date.
    pub(super) async fn show(&mut self, plan: &Plan, outcome: &mut Outcome) {
        if !self.api.makes_checks() || !self.can(&Resource::Check).writes() {
            return;
        }
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for (key, note) in &self.checks.0 {
            match plan.wanted.statuses.get(key) {
                Some(status) if note.says.as_ref() != Some(&says(status)) => {
                    changed.push((key.clone(), note.clone(), status));
                }
                Some(_) => (),
                None => gone.push(key.clone()),
            }
        }
        for key in gone {
            self.notes.remove(&place(&key));
            self.checks.0.remove(&key);
        }
        for (key, mut note, status) in changed {
            let (repo, sha, context) = &key;
            if !self.known.contains(repo) {
                continue;
            }
            let check = Check {
                repo,
                sha,
                context,
                status,
            };
            match self.api.check(&check, note.run).await {
                Ok(run) => {
                    note.run = Some(run);
                    note.says = Some(says(status));
                }
                Err(error) => {
                    let id = Id::Status(repo.clone(), sha.clone(), context.clone());
                    tracing::warn!(target: "bridge", "check run of {id}: {error}");
                    // What is not accepted would not be another time.
                    if !error.may_pass() {
                        note.says = Some(says(status));
                    }
                    outcome.unshown.push((id, error));
                }
            }
            if let Ok(text) = serde_json::to_string(&note) {
                self.notes.set(&place(&key), text);
            }
            self.checks.0.insert(key, note);
        }
    }
}
