//! Writing down what came of it: in the branch, and in the one that remembers.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Asked, Outcome, Sync};
use crate::bridge::github::notes::HEAD;
use crate::bridge::github::plan::{Plan, agreed_pr};
use crate::client::{CommitOptions, Empty, Expect, Result};
use crate::forge::layout::{self, Dirty, change};
use crate::forge::{Difference, Id, Repo};
use crate::model::ObjectId;

/// Elements named in a commit's message.
const NAMED: usize = 100;

impl Sync {
    /// Makes the branch say what is wanted; nothing where it does already.
    pub(super) async fn commit(
        &self,
        plan: &Plan,
        head: &ObjectId,
        done: &Dirty,
        asked: &[Asked],
        outcome: &Outcome,
    ) -> Result<Option<ObjectId>> {
        let reader = &self.reader;
        let difference = plan.wanted.since(reader.snapshot());
        let mut puts = reader.edits(&difference);
        let mut reason = message(&difference);
        let mut add = |more: Vec<_>, why: &str| {
            if puts.is_empty() && !more.is_empty() {
                reason = why.into();
            }
            layout::add(&mut puts, more);
        };
        for (repo, sha, context) in asked {
            let contexts = match context {
                Some(context) => vec![context.clone()],
                None => self.checks.of(repo, sha),
            };
            let why = format!("Rebuild of {repo} {sha} asked for\n");
            add(reader.rebuild(repo, sha, &contexts), &why);
        }
        add(reader.cleaned(done), "Cleaning up .dirty files\n");
        for put in self.reasons(outcome) {
            add(put, "Update .error files\n");
        }
        if puts.is_empty() {
            return Ok(None);
        }
        let options = CommitOptions {
            message: Some(reason.into_bytes()),
            expect: Expect::Head(*head),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        let branch = &self.options.branch;
        let commit = self.client.edit(branch, change(puts), options).await?;
        Ok((commit != *head).then_some(commit))
    }

    /// Returns what makes the `.error` files say what could not be read.
    fn reasons(&self, outcome: &Outcome) -> Vec<Vec<layout::Put>> {
        let mut all = Vec::new();
        let known = &self.reader.snapshot().repos;
        let repos: BTreeSet<&Repo> = known.iter().chain(outcome.unread.keys()).collect();
        for repo in repos {
            let why = outcome.unread.get(repo).map(ToString::to_string);
            if why.is_some() || self.known.contains(repo) {
                all.push(self.reader.error(&repo.to_string(), why.as_deref()));
            }
        }
        for account in self.reader.accounts() {
            let why = outcome.unlisted.get(account).map(ToString::to_string);
            if why.is_some() || self.listed.contains_key(account) {
                all.push(self.reader.error(account, why.as_deref()));
            }
        }
        all
    }

    /// Keeps what both sides agree on now, and the notes.
    pub(super) async fn remember(
        &mut self,
        plan: &Plan,
        head: &ObjectId,
        rewound: bool,
    ) -> Result<()> {
        let branch = self.sync_branch()?;
        let Some(memory) = &mut self.memory else {
            return Ok(());
        };
        // Where they differ (it could not be told), the old agreement stands.
        let mut agreed = plan.wanted.clone();
        let still = plan.wanted.since(&self.forge);
        for (key, wanted) in &still.updated.prs {
            let before = memory.snapshot().prs.get(key);
            let both = match self.forge.prs.get(key) {
                Some(forge) => agreed_pr(wanted, forge, before),
                None => before.cloned(),
            };
            agreed.prs.remove(key);
            agreed.prs.extend(both.map(|pr| (key.clone(), pr)));
        }
        for key in still.updated.refs.keys() {
            agreed.refs.remove(key);
            agreed
                .refs
                .extend(memory.snapshot().refs.get_key_value(key).map(own));
        }
        for key in still.updated.statuses.keys() {
            agreed.statuses.remove(key);
            agreed
                .statuses
                .extend(memory.snapshot().statuses.get_key_value(key).map(own));
        }
        for id in &still.removed {
            if let Id::Ref(repo, name) = id {
                let key = (repo.clone(), name.clone());
                agreed
                    .refs
                    .extend(memory.snapshot().refs.get_key_value(&key).map(own));
            }
        }
        let mut puts = memory.edits(&agreed.since(memory.snapshot()));
        let agreed = !puts.is_empty();
        if agreed || rewound || !self.notes.pending().is_empty() || memory.at().is_none() {
            self.notes.set(HEAD, format!("{}\n", head.to_hex()));
        }
        let notes = self.notes.pending();
        puts.extend(notes.iter().cloned());
        if puts.is_empty() {
            return Ok(());
        }
        let message = match agreed {
            true => "Remember what was agreed on\n",
            false => "Remember what was read\n",
        };
        let options = CommitOptions {
            message: Some(message.into()),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        let commit = self.client.edit(&branch, change(puts), options).await?;
        self.notes.committed(&notes);
        memory.advance(&*self.client, &commit).await
    }
}

fn own<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// Says what a commit brings.
fn message(difference: &Difference) -> String {
    let new = &difference.updated;
    let mut updated: Vec<Id> = Vec::new();
    updated.extend(
        new.prs
            .keys()
            .map(|(repo, number)| Id::Pr(repo.clone(), *number)),
    );
    updated.extend(
        new.refs
            .keys()
            .map(|(repo, name)| Id::Ref(repo.clone(), name.clone())),
    );
    for (repo, sha, context) in new.statuses.keys() {
        updated.push(Id::Status(repo.clone(), sha.clone(), context.clone()));
    }
    let removed: Vec<&Id> = difference.removed.iter().collect();
    let count = updated.len() + removed.len();
    let items = if count == 1 {
        "1 item".to_owned()
    } else {
        format!("{count} items")
    };
    let verb = match (updated.is_empty(), removed.is_empty()) {
        (_, true) => "updated",
        (true, false) => "removed",
        (false, false) => "modified",
    };
    let mut text = format!("{items} {verb}\n");
    let mut list = |head: &str, ids: &mut dyn Iterator<Item = String>| {
        let _ = write!(text, "\n{head}");
        for id in ids.take(NAMED) {
            let _ = writeln!(text, "  {id}");
        }
    };
    let mixed = verb == "modified";
    if !updated.is_empty() {
        let head = if mixed { "Updated:\n" } else { "" };
        list(head, &mut updated.iter().map(ToString::to_string));
    }
    if !removed.is_empty() {
        let head = if mixed { "Removed:\n" } else { "" };
        list(head, &mut removed.iter().map(ToString::to_string));
    }
    text
}
