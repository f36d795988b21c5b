//! Taking in what GitHub has: by reading it, and by what it tells.
//!
//! Whatever could not be read makes its repository one that has to be read
//! again; until then the branch says of it what it said.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;

use super::{Asked, Outcome, Sync};
use crate::bridge::github::api;
use crate::bridge::github::capabilities::Resource;
use crate::bridge::github::plan::Plan;
use crate::bridge::github::read::{import, statuses};
use crate::forge::layout::Dirty;
use crate::forge::{Id, Pr, PrState, Repo};

/// Repositories read at the same time.
const AT_ONCE: usize = 8;

impl Sync {
    /// Asks which repositories accounts have that are followed as a whole. One
    /// that the branch knows and does not follow is left alone.
    pub(super) async fn list(&mut self, outcome: &mut Outcome) {
        let accounts = self.reader.accounts();
        self.listed.retain(|account, _| accounts.contains(account));
        let new = accounts
            .iter()
            .filter(|account| !self.listed.contains_key(*account));
        let api = &self.api;
        let listed = futures_util::stream::iter(new.map(|account| async move {
            let repos = api.repositories(account).await;
            (account.clone(), repos)
        }));
        let listed: Vec<_> = listed.buffer_unordered(AT_ONCE).collect().await;
        for (account, repos) in listed {
            match repos {
                Ok(repos) => {
                    outcome.unlisted.remove(&account);
                    self.listed.insert(account, repos.into_iter().collect());
                }
                Err(error) => {
                    tracing::warn!(target: "bridge", "{account}: {error}");
                    outcome.unlisted.insert(account, error);
                }
            }
        }
        for repos in self.listed.values_mut() {
            repos.retain(|repo| !self.reader.knows(repo));
        }
    }

    /// Reads what is new, what is marked, and if asked for all of it. Returns
    /// the marks that were served.
    pub(super) async fn import(&mut self, everything: bool, outcome: &mut Outcome) -> Dirty {
        let (branch, dirty) = (self.reader.snapshot(), self.reader.dirty().clone());
        let followed = |repo: &Repo| {
            branch.repos.contains(repo)
                || dirty.repos.contains(repo)
                || self.listed.values().any(|repos| repos.contains(repo))
        };
        self.known.retain(followed);
        let mut wanted: BTreeSet<Repo> = branch.repos.difference(&self.known).cloned().collect();
        wanted.extend(dirty.repos.iter().cloned());
        wanted.extend(self.listed.values().flatten().cloned());
        if everything {
            wanted.extend(branch.repos.iter().cloned());
        }
        wanted.retain(|repo| self.can(&Resource::Repo(repo)).reads());
        let (api, caps, keep) = (&self.api, &self.options.capabilities, self.keep());
        let read = wanted.iter().map(|repo| {
            let older = self.older(repo);
            async move { (repo, import(&**api, caps, repo, older, keep).await) }
        });
        let read: Vec<_> = futures_util::stream::iter(read)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (repo, read) in read {
            match read {
                Ok(snapshot) => {
                    self.forge.remove(&Id::Repo(repo.clone()));
                    self.forge.merge(snapshot);
                    outcome.unread.remove(repo);
                    self.known.insert(repo.clone());
                }
                Err(error) => self.lose(repo, error, outcome),
            }
        }
        for (repo, number) in &dirty.prs {
            let asked = self.known.contains(repo) && self.can(&Resource::Pr).reads();
            if asked && !wanted.contains(repo) {
                self.look(repo, *number, outcome).await;
            }
        }
        for (repo, name) in &dirty.refs {
            let asked = self.known.contains(repo) && self.can(&Resource::Ref).reads();
            if !asked || wanted.contains(repo) {
                continue;
            }
            match self.api.reference(repo, name).await {
                Ok(found) => {
                    self.forge.remove(&Id::Ref(repo.clone(), name.clone()));
                    if let Some(head) = found {
                        self.arrive(repo, &head, outcome).await;
                        self.forge.add_ref(repo, name, head);
                    }
                }
                Err(error) => self.lose(repo, error, outcome),
            }
        }
        // A mark stays where it could not be served.
        let mut done = dirty;
        let served = |repo: &Repo| !outcome.unread.contains_key(repo);
        done.repos.retain(served);
        done.prs.retain(|(repo, _)| served(repo));
        done.refs.retain(|(repo, _)| served(repo));
        done
    }

    /// Returns the pull requests of a repository as they were.
    fn older(&self, repo: &Repo) -> BTreeMap<u64, Pr> {
        let agreed = self.memory.as_ref().map(|memory| &memory.snapshot().prs);
        let mut older = BTreeMap::new();
        for prs in agreed.into_iter().chain([&self.forge.prs]) {
            let range = prs.range((repo.clone(), 0)..=(repo.clone(), u64::MAX));
            older.extend(range.map(|((_, number), pr)| (*number, pr.clone())));
        }
        older
    }

    /// A repository has to be read again, as a whole.
    fn lose(&mut self, repo: &Repo, error: api::Error, outcome: &mut Outcome) {
        tracing::warn!(target: "bridge", "{repo}: {error}");
        self.known.remove(repo);
        outcome.unread.insert(repo.clone(), error);
    }

    /// Reads one pull request.
    async fn look(&mut self, repo: &Repo, number: u64, outcome: &mut Outcome) {
        match self.api.pull(repo, number).await {
            Ok(found) => {
                self.forge.remove(&Id::Pr(repo.clone(), number));
                if let Some(pr) = found {
                    if pr.state == PrState::Open {
                        self.arrive(repo, &pr.head, outcome).await;
                    }
                    self.forge.add_pr(repo, number, pr);
                }
            }
            Err(error) => self.lose(repo, error, outcome),
        }
    }

    /// Reads the pull requests again on which a comment may be already.
    pub(super) async fn make_sure(&mut self, outcome: &mut Outcome) {
        for (repo, number) in std::mem::take(&mut self.unsure) {
            if self.known.contains(&repo) {
                self.look(&repo, number, outcome).await;
            }
        }
    }

    /// Reads the statuses of a commit that is new.
    async fn arrive(&mut self, repo: &Repo, sha: &str, outcome: &mut Outcome) {
        if self.forge.commits.contains(&(repo.clone(), sha.into())) {
            return;
        }
        let caps = &self.options.capabilities;
        match statuses(&*self.api, caps, repo, [sha].into()).await {
            Ok(found) => self.forge.merge(found),
            Err(error) => self.lose(repo, error, outcome),
        }
    }

    /// Takes in the statuses of a commit that a ref is moved to from here.
    pub(super) async fn reach(
        &mut self,
        plan: &mut Plan,
        repo: &Repo,
        sha: &str,
        outcome: &mut Outcome,
    ) {
        let (prs, refs) = (&self.forge.prs, &self.forge.refs);
        let is_head = prs.iter().any(|((of, _), pr)| of == repo && pr.head == sha)
            || refs.iter().any(|((of, _), head)| of == repo && head == sha);
        if is_head {
            return;
        }
        match statuses(&*self.api, &self.options.capabilities, repo, [sha].into()).await {
            Ok(found) => {
                for (key, status) in &found.statuses {
                    if !plan.wanted.statuses.contains_key(key) {
                        plan.wanted.add_status(repo, sha, &key.2, status.clone());
                    }
                }
                self.forge.merge(found);
            }
            Err(error) => self.lose(repo, error, outcome),
        }
    }

    /// Takes in what happened, after the statuses of commits it brings.
    /// Returns what is to be built again.
    pub(super) async fn hear(
        &mut self,
        events: &[api::Event],
        outcome: &mut Outcome,
    ) -> Vec<Asked> {
        let mut asked = Vec::new();
        let mut heads = BTreeSet::new();
        let before = self.known.len();
        for event in events {
            match event {
                api::Event::Again(repo) => _ = self.known.remove(repo),
                api::Event::Pr(repo, _, pr) if pr.state == PrState::Open => {
                    heads.insert((repo.clone(), pr.head.clone()));
                }
                api::Event::Ref(repo, _, Some(head)) => {
                    heads.insert((repo.clone(), head.clone()));
                }
                _ => (),
            }
        }
        if self.known.len() < before {
            self.import(false, outcome).await;
        }
        for (repo, sha) in heads {
            if self.known.contains(&repo) {
                self.arrive(&repo, &sha, outcome).await;
            }
        }
        for event in events.iter().cloned() {
            // What is not known is going to be read as a whole.
            if event.repo().is_some_and(|repo| !self.known.contains(repo)) {
                continue;
            }
            match event {
                api::Event::Pr(repo, number, pr) if self.can(&Resource::Pr).reads() => {
                    match self.api.complete(&repo, number, pr).await {
                        Ok(pr) => self.forge.add_pr(&repo, number, pr),
                        Err(error) => self.lose(&repo, error, outcome),
                    }
                }
                api::Event::Look(repo, number) if self.can(&Resource::Pr).reads() => {
                    self.look(&repo, number, outcome).await;
                }
                api::Event::Ref(repo, name, head) if self.can(&Resource::Ref).reads() => match head
                {
                    Some(head) => self.forge.add_ref(&repo, &name, head),
                    None => self.forge.remove(&Id::Ref(repo, name)),
                },
                api::Event::Status(repo, sha, context, status)
                    if self.can(&Resource::Status(&context)).reads() =>
                {
                    self.forge.add_status(&repo, &sha, &context, status);
                }
                api::Event::Rebuild(repo, sha, context) if self.can(&Resource::Check).reads() => {
                    asked.push((repo, sha, context));
                }
                api::Event::Account(account) => {
                    let followed = self.reader.accounts().contains(&account);
                    if followed && self.listed.remove(&account).is_some() {
                        self.list(outcome).await;
                        self.import(false, outcome).await;
                    }
                }
                _ => (),
            }
        }
        asked
    }

    pub(super) fn prune(&mut self) {
        let keep = self.keep();
        self.forge.prune(|_, _, pr| keep.keeps(pr));
        // A repository without anything in it is followed all the same.
        self.forge.repos.extend(self.known.iter().cloned());
    }
}
