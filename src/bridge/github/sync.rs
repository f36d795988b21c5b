//! One step after the other until branch and GitHub agree.
//!
//! - Nothing that failed to be read looks deleted: such a repository stays in
//!   the branch as it is, with the reason in `U/R/.error`.
//! - Events are given back unless the sync that used them was committed.
//! - A sync without differences commits nothing, to neither branch.
//! - What was agreed on is kept in the branch `NAME.sync`; a crash between the
//!   two commits is found out by the next sync, where both sides are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::api::{self, Api};
use super::capabilities::{Capabilities, Resource};
use super::plan::{Plan, Push, Sides, marked, plan};
use super::read::{import, statuses};
use crate::client::{
    Client, CommitOptions, Empty, Error, Event, Expect, Records, Result, Since, WatchQuery,
};
use crate::forge::layout::{Put, Reader, change};
use crate::forge::{Difference, Id, Pr, PrState, Repo, Snapshot};
use crate::model::{BranchName, Kind, ObjectId, TreePath};

/// Repositories read at the same time.
const AT_ONCE: usize = 4;
/// Times a sync begins anew because somebody else wrote the branch.
const TRIES: usize = 6;
/// Refs removed there in one sync without being told that many may be.
const DELETIONS: usize = 10;
/// Elements named in a commit's message.
const NAMED: usize = 100;

/// How a bridge goes about it.
#[derive(Clone, Debug)]
pub struct Options {
    pub branch: BranchName,
    pub capabilities: Capabilities,
    /// Change nothing, neither there nor here.
    pub dry_run: bool,
    pub allow_deletes: bool,
}

/// What one sync did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The new head of the branch, if it needed a commit.
    pub commit: Option<ObjectId>,
    /// What GitHub was told, or with `dry_run` would be.
    pub pushed: Vec<Push>,
    /// What GitHub did not take, and why.
    pub failed: Vec<(Push, api::Error)>,
    /// The repositories that could not be read, and why.
    pub unread: BTreeMap<Repo, api::Error>,
}

/// A branch and GitHub, and what is known of both.
pub struct Sync {
    client: Arc<dyn Client>,
    api: Arc<dyn Api>,
    options: Options,
    reader: Reader,
    /// What was agreed on, as it lies in its own branch.
    memory: Option<Reader>,
    /// What GitHub is believed to be: of the repositories in `known` only.
    forge: Snapshot,
    known: BTreeSet<Repo>,
}

impl Sync {
    pub fn new(client: Arc<dyn Client>, api: Arc<dyn Api>, options: Options) -> Self {
        Self {
            client,
            api,
            options,
            reader: Reader::default(),
            memory: None,
            forge: Snapshot::default(),
            known: BTreeSet::new(),
        }
    }

    /// Follows repositories: what the command line asks for.
    pub async fn follow(&mut self, repos: &[Repo]) -> Result<()> {
        let monitor = |repo: &Repo| Put {
            path: format!("{repo}/.monitor"),
            content: Some(Vec::new()),
        };
        let options = CommitOptions {
            message: Some(b"initial commit".to_vec()),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        let puts = repos.iter().map(monitor).collect();
        let branch = &self.options.branch;
        self.client.edit(branch, change(puts), options).await?;
        Ok(())
    }

    /// Tells when somebody else changes the branch.
    pub fn watch(&self) -> Records<Event> {
        self.client.watch(WatchQuery {
            branch: self.options.branch.clone(),
            path: TreePath::root(),
            since: self
                .reader
                .at()
                .map_or(Since::Beginning, |at| Since::Commit(*at)),
            latest: true,
            unchanged: false,
        })
    }

    /// Brings both sides together once. `everything`: repositories that are
    /// known are read again. `events` are used up unless this fails.
    pub async fn sync(&mut self, everything: bool, events: &[api::Event]) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut fresh = true;
        for _ in 0..TRIES {
            let head = self.branch().await?;
            self.reader.advance(&*self.client, &head).await?;
            if self.memory.is_none() {
                self.memory = Some(self.remembered().await?);
            }
            if std::mem::take(&mut fresh) {
                self.import(everything, &mut outcome).await;
                self.hear(events).await;
                self.prune();
            } else {
                self.import(false, &mut outcome).await;
            }
            let mut plan = self.plan();
            self.push(&mut plan, &mut outcome).await;
            if self.options.dry_run {
                return Ok(outcome);
            }
            match self.commit(&plan, &head, &outcome).await {
                Ok(commit) => {
                    outcome.commit = commit;
                    self.remember(&plan).await?;
                    return Ok(outcome);
                }
                Err(error) if error.kind() == Kind::HeadMoved => (),
                Err(error) => return Err(error),
            }
        }
        let why = format!(
            "branch {} is written by somebody else all the time",
            self.options.branch
        );
        Err(Error::new(Kind::Busy, why))
    }

    /// Returns the head of the branch, which is born if it has to be.
    async fn branch(&self) -> Result<ObjectId> {
        let branch = &self.options.branch;
        if let Some(head) = self.client.head(branch).await? {
            return Ok(head);
        }
        let readme = Put {
            path: "README.md".into(),
            content: Some(b"### DataKit -- GitHub bridge\n".to_vec()),
        };
        let options = CommitOptions {
            message: Some(b"Initial commit".to_vec()),
            expect: Expect::Unborn,
            ..CommitOptions::default()
        };
        match self
            .client
            .edit(branch, change(vec![readme]), options)
            .await
        {
            Err(error) if error.kind() == Kind::HeadMoved => {
                match self.client.head(branch).await? {
                    Some(head) => Ok(head),
                    None => Err(error),
                }
            }
            born => born,
        }
    }

    fn sync_branch(&self) -> Result<BranchName> {
        let name = [self.options.branch.as_bytes(), b".sync"].concat();
        Ok(BranchName::new(name)?)
    }

    async fn remembered(&self) -> Result<Reader> {
        let mut memory = Reader::default();
        if let Some(head) = self.client.head(&self.sync_branch()?).await? {
            memory.advance(&*self.client, &head).await?;
        }
        Ok(memory)
    }

    /// Reads what is new, what is marked, and if asked for all of it.
    async fn import(&mut self, everything: bool, outcome: &mut Outcome) {
        let (branch, dirty) = (self.reader.snapshot(), self.reader.dirty());
        let mut wanted: BTreeSet<Repo> = branch.repos.difference(&self.known).cloned().collect();
        wanted.extend(dirty.repos.iter().cloned());
        if everything {
            wanted.extend(branch.repos.iter().cloned());
        }
        wanted.retain(|repo| self.can(&Resource::Repo(repo)).reads());
        let prs: Vec<_> = dirty
            .prs
            .iter()
            .filter(|(repo, _)| !wanted.contains(repo))
            .cloned()
            .collect();
        let refs: Vec<_> = dirty
            .refs
            .iter()
            .filter(|(repo, _)| !wanted.contains(repo))
            .cloned()
            .collect();
        let (api, caps) = (&self.api, &self.options.capabilities);
        let read = futures_util::stream::iter(wanted.into_iter().map(|repo| async move {
            let read = import(&**api, caps, &repo).await;
            (repo, read)
        }));
        let read: Vec<_> = read.buffer_unordered(AT_ONCE).collect().await;
        for (repo, read) in read {
            match read {
                Ok(snapshot) => {
                    self.forge.remove(&Id::Repo(repo.clone()));
                    self.forge.merge(snapshot);
                    outcome.unread.remove(&repo);
                    self.known.insert(repo);
                }
                Err(error) => {
                    tracing::warn!(target: "bridge", "{repo}: {error}");
                    outcome.unread.insert(repo, error);
                }
            }
        }
        for (repo, number) in prs {
            if !self.known.contains(&repo) || !self.can(&Resource::Pr).reads() {
                continue;
            }
            self.look(&repo, number).await;
        }
        for (repo, name) in refs {
            if !self.known.contains(&repo) || !self.can(&Resource::Ref).reads() {
                continue;
            }
            match self.api.reference(&repo, &name).await {
                Ok(found) => {
                    self.forge.remove(&Id::Ref(repo.clone(), name.clone()));
                    if let Some(head) = found {
                        self.forge.add_ref(&repo, &name, head);
                    }
                }
                Err(error) => tracing::warn!(target: "bridge", "{repo} {name}: {error}"),
            }
        }
    }

    /// Reads one pull request.
    async fn look(&mut self, repo: &Repo, number: u64) {
        match self.api.pull(repo, number).await {
            Ok(found) => {
                self.forge.remove(&Id::Pr(repo.clone(), number));
                if let Some(pr) = found {
                    self.forge.add_pr(repo, number, pr);
                }
            }
            Err(error) => tracing::warn!(target: "bridge", "{repo} {number}: {error}"),
        }
    }

    fn can(&self, resource: &Resource<'_>) -> super::capabilities::Ops {
        self.options.capabilities.on(resource)
    }

    /// Takes in what happened, after the statuses of commits it brings.
    async fn hear(&mut self, events: &[api::Event]) {
        let followed = |event: &&api::Event| self.known.contains(event.repo());
        let events: Vec<api::Event> = events.iter().filter(followed).cloned().collect();
        let mut heads = BTreeSet::new();
        for event in &events {
            match event {
                api::Event::Pr(repo, _, pr) if pr.state == PrState::Open => {
                    heads.insert((repo.clone(), pr.head.clone()));
                }
                api::Event::Ref(repo, _, Some(head)) => {
                    heads.insert((repo.clone(), head.clone()));
                }
                _ => (),
            }
        }
        for (repo, sha) in heads {
            if self.forge.commits.contains(&(repo.clone(), sha.clone())) {
                continue;
            }
            let caps = &self.options.capabilities;
            match statuses(&*self.api, caps, &repo, [sha.as_str()].into()).await {
                Ok(found) => self.forge.merge(found),
                Err(error) => tracing::warn!(target: "bridge", "{repo} {sha}: {error}"),
            }
        }
        for event in events {
            match event {
                api::Event::Pr(repo, number, pr) if self.can(&Resource::Pr).reads() => {
                    let known = self.forge.prs.get(&(repo.clone(), number));
                    let comments = known.map(|pr| pr.comments.clone());
                    let pr = match self.api.complete(&repo, number, pr.clone()).await {
                        Ok(pr) => pr,
                        Err(error) => {
                            tracing::warn!(target: "bridge", "{repo} {number}: {error}");
                            Pr {
                                comments: comments.unwrap_or_default(),
                                ..pr
                            }
                        }
                    };
                    self.forge.add_pr(&repo, number, pr);
                }
                api::Event::Look(repo, number) if self.can(&Resource::Pr).reads() => {
                    self.look(&repo, number).await;
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
                _ => (),
            }
        }
    }

    fn prune(&mut self) {
        let known = self.known.clone();
        self.forge.prune(|_, _, _| false);
        // A repository without anything in it is followed all the same.
        self.forge.repos.extend(known);
    }

    fn plan(&self) -> Plan {
        let mut branch = self.reader.snapshot().clone();
        // A mark on a repository that is not followed asks for it.
        for repo in self.reader.dirty().repos.intersection(&self.known) {
            branch.add_repo(repo);
        }
        let mut unread = Snapshot::default();
        for repo in branch.repos.difference(&self.known) {
            unread.merge(branch.of(repo));
        }
        for repo in &unread.repos {
            branch.remove(&Id::Repo(repo.clone()));
        }
        let remembered = self.memory.as_ref().filter(|memory| memory.at().is_some());
        let sides = Sides {
            branch: &branch,
            forge: &self.forge,
            agreed: remembered.map(Reader::snapshot),
        };
        let mut plan = plan(&self.options.capabilities, &sides);
        plan.wanted.merge(unread);
        plan
    }

    /// Tells GitHub, one thing after the other.
    async fn push(&mut self, plan: &mut Plan, outcome: &mut Outcome) {
        let removes = |push: &&Push| matches!(push, Push::RemoveRef(..));
        let deletions = plan.pushes.iter().filter(removes).count();
        let refused = deletions > DELETIONS && !self.options.allow_deletes;
        for push in std::mem::take(&mut plan.pushes) {
            if self.options.dry_run {
                outcome.pushed.push(push);
                continue;
            }
            let pushed = match &push {
                Push::RemoveRef(..) if refused => Err(api::Error::Rejected(format!(
                    "{deletions} refs would be removed at once, which needs --allow-deletes"
                ))),
                push => self.api.push(push).await,
            };
            match pushed {
                Ok(number) => {
                    self.believe(plan, &push, number);
                    outcome.pushed.push(push);
                }
                Err(error) => {
                    tracing::warn!(target: "bridge", "{}: {error}", push.id());
                    plan.failed(&push.id(), self.reader.snapshot());
                    outcome.failed.push((push, error));
                }
            }
        }
    }

    /// What GitHub took is what it is now.
    fn believe(&mut self, plan: &mut Plan, push: &Push, number: Option<u64>) {
        match push {
            Push::Pr(repo, id, pr) => self.forge.add_pr(repo, *id, pr.clone()),
            Push::Comment(repo, id, comment) => {
                let posted = crate::forge::Comment {
                    id: number.unwrap_or_default(),
                    user: comment.user.clone(),
                    body: marked(repo, *id, comment),
                };
                for side in [&mut self.forge, &mut plan.wanted] {
                    if let Some(pr) = side.prs.get_mut(&(repo.clone(), *id)) {
                        pr.comments.push(posted.clone());
                    }
                }
            }
            Push::Status(repo, sha, context, status) => {
                self.forge.add_status(repo, sha, context, status.clone());
            }
            Push::SetRef(repo, name, head) => self.forge.add_ref(repo, name, head.clone()),
            Push::RemoveRef(repo, name) => {
                self.forge.remove(&Id::Ref(repo.clone(), name.clone()));
            }
        }
    }

    /// Makes the branch say what is wanted; nothing where it does already.
    async fn commit(
        &self,
        plan: &Plan,
        head: &ObjectId,
        outcome: &Outcome,
    ) -> Result<Option<ObjectId>> {
        let difference = plan.wanted.since(self.reader.snapshot());
        let mut puts = self.reader.edits(&difference);
        let mut message = message(&difference);
        if puts.is_empty() {
            message = "Cleaning up .dirty files\n".into();
        }
        puts.extend(self.reader.cleaned());
        let reasons = self.reader.errors(|repo| match outcome.unread.get(repo) {
            Some(error) => Some(Some(format!("{error}\n"))),
            None => self.known.contains(repo).then_some(None),
        });
        if puts.is_empty() && !reasons.is_empty() {
            message = "Update .error files\n".into();
        }
        puts.extend(reasons);
        if puts.is_empty() {
            return Ok(None);
        }
        let options = CommitOptions {
            message: Some(message.into_bytes()),
            expect: Expect::Head(*head),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        let branch = &self.options.branch;
        let commit = self.client.edit(branch, change(puts), options).await?;
        Ok((commit != *head).then_some(commit))
    }

    /// Keeps what both sides agree on now.
    async fn remember(&mut self, plan: &Plan) -> Result<()> {
        let branch = self.sync_branch()?;
        let Some(memory) = &mut self.memory else {
            return Ok(());
        };
        // Where they differ (it could not be told), the old agreement stands.
        let mut agreed = plan.wanted.clone();
        let still = plan.wanted.since(&self.forge);
        for key in still.updated.prs.keys() {
            agreed.prs.remove(key);
            agreed
                .prs
                .extend(memory.snapshot().prs.get_key_value(key).map(own));
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
        let puts = memory.edits(&agreed.since(memory.snapshot()));
        if puts.is_empty() {
            return Ok(());
        }
        let options = CommitOptions {
            message: Some(b"Remember what was agreed on\n".to_vec()),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        let commit = self.client.edit(&branch, change(puts), options).await?;
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
