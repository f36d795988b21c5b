//! One step after the other until branch and GitHub agree.
//!
//! - Nothing that failed to be read looks deleted: such a repository stays in
//!   the branch as it is, with the reason in `U/R/.error`, and is read again.
//! - Events are given back unless the sync that used them was committed.
//! - A sync without differences commits nothing, to neither branch.
//! - What was agreed on is kept in the branch `NAME.sync`, with the notes; a
//!   crash between the two commits is found out by the next sync, where both
//!   sides are equal.
//! - A metadata branch that does not contain the commit that was synchronised
//!   last was rewound: then nothing in it counts as changed there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::api::{self, Api};
use super::capabilities::{Capabilities, Resource};
use super::notes::{HEAD, Notes};
use super::plan::{Plan, Push, Sides, marked, plan};
use super::read::Keep;
use crate::client::{Client, CommitOptions, Empty, Error, Event, Expect, Records, Result};
use crate::forge::layout::{Put, Reader, change};
use crate::forge::{Comment, Context, Id, PrState, Repo, Sha, Snapshot};
use crate::metrics::metrics;
use crate::model::{BranchName, Kind, ObjectId};

mod checks;
mod keep;
mod take;

/// Times a sync begins anew because somebody else wrote the branch.
const TRIES: usize = 6;
/// Refs removed there in one sync without being told that many may be.
const DELETIONS: usize = 10;

/// How a bridge goes about it.
#[derive(Clone, Debug)]
pub struct Options {
    pub branch: BranchName,
    pub capabilities: Capabilities,
    /// Change nothing, neither there nor here.
    pub dry_run: bool,
    pub allow_deletes: bool,
    /// How long pull requests stay after they were closed.
    pub keep_closed: Duration,
}

impl Options {
    /// A bridge that reads `branch`, and is careful.
    pub fn new(branch: BranchName, capabilities: Capabilities) -> Self {
        Self {
            branch,
            capabilities,
            dry_run: false,
            allow_deletes: false,
            keep_closed: Duration::ZERO,
        }
    }
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
    /// The accounts whose repositories could not be listed, and why.
    pub unlisted: BTreeMap<String, api::Error>,
    /// What could not be shown as a check run, and why.
    pub unshown: Vec<(Id, api::Error)>,
}

impl Outcome {
    /// Returns every failure.
    pub fn errors(&self) -> impl Iterator<Item = &api::Error> {
        let failed = self.failed.iter().map(|(_, error)| error);
        let unshown = self.unshown.iter().map(|(_, error)| error);
        let unread = self.unread.values().chain(self.unlisted.values());
        unread.chain(failed).chain(unshown)
    }
}

/// Something that is asked to be built again: one context, or all that are
/// shown as checks.
type Asked = (Repo, Sha, Option<Context>);

/// A branch and GitHub, and what is known of both.
pub struct Sync {
    client: Arc<dyn Client>,
    api: Arc<dyn Api>,
    options: Options,
    notes: Arc<Notes>,
    reader: Reader,
    /// What was agreed on, as it lies in its own branch.
    memory: Option<Reader>,
    /// What GitHub is believed to be: of the repositories in `known` only.
    forge: Snapshot,
    known: BTreeSet<Repo>,
    /// Accounts that were listed, with the repositories the branch does not
    /// have yet.
    listed: BTreeMap<String, BTreeSet<Repo>>,
    /// Pull requests on which a comment may be or may not: the answer was lost.
    /// They are read before anything else is posted.
    unsure: BTreeSet<(Repo, u64)>,
    /// What GitHub did not accept and will not, until something else is said.
    refused: Vec<(Push, api::Error)>,
    /// The last head that was no step back.
    seen: Option<ObjectId>,
    checks: checks::Shown,
}

impl Sync {
    /// `notes` are filled by the first sync with what was noted before.
    pub fn new(
        client: Arc<dyn Client>,
        api: Arc<dyn Api>,
        notes: Arc<Notes>,
        options: Options,
    ) -> Self {
        Self {
            client,
            api,
            options,
            notes,
            reader: Reader::default(),
            memory: None,
            forge: Snapshot::default(),
            known: BTreeSet::new(),
            listed: BTreeMap::new(),
            unsure: BTreeSet::new(),
            refused: Vec::new(),
            seen: None,
            checks: checks::Shown::default(),
        }
    }

    /// Follows repositories, and accounts with all that is theirs: what the
    /// command line asks for.
    pub async fn follow(&mut self, repos: &[Repo], accounts: &[String]) -> Result<()> {
        if self.options.dry_run {
            self.reader = Reader::following(repos.iter().cloned().collect());
            return Ok(());
        }
        if repos.is_empty() && accounts.is_empty() {
            return Ok(());
        }
        self.branch().await?;
        let monitor = |place: String| Put {
            path: format!("{place}/.monitor"),
            content: Some(Vec::new()),
        };
        let options = CommitOptions {
            message: Some(b"Follow what is asked for\n".to_vec()),
            empty: Empty::Skip,
            ..CommitOptions::default()
        };
        let repos = repos.iter().map(ToString::to_string);
        let places = repos.chain(accounts.iter().cloned());
        let puts = places.map(monitor).collect();
        let branch = &self.options.branch;
        self.client.edit(branch, change(puts), options).await?;
        Ok(())
    }

    /// The repositories that are followed, can be read, and may have a webhook.
    pub fn hooked(&self) -> impl Iterator<Item = &Repo> {
        let may = self.can(&Resource::Webhook).writes();
        self.known.iter().filter(move |_| may)
    }

    /// The accounts that are followed, can be read, and may have a webhook.
    pub fn accounts(&self) -> impl Iterator<Item = &String> {
        let may = self.can(&Resource::Webhook).writes();
        self.listed.keys().filter(move |_| may)
    }

    /// Tells when somebody else changes the branch.
    pub fn watch(&self) -> Records<Event> {
        self.reader.watch(&*self.client, &self.options.branch)
    }

    /// Brings both sides together once. `everything`: repositories that are
    /// known are read again. `events` are used up unless this fails.
    pub async fn sync(&mut self, everything: bool, events: &[api::Event]) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut asked = Vec::new();
        let mut fresh = true;
        self.recall().await?;
        for _ in 0..TRIES {
            let Some(head) = self.branch().await? else {
                return Ok(outcome);
            };
            let rewound = self.is_rewound(&head).await?;
            self.reader.advance(&*self.client, &head).await?;
            let first = std::mem::take(&mut fresh);
            if first && everything {
                self.refused.clear();
                self.listed.clear();
            }
            self.list(&mut outcome).await;
            let done = self.import(everything && first, &mut outcome).await;
            if first {
                asked = self.hear(events, &mut outcome).await;
            }
            self.make_sure(&mut outcome).await;
            self.prune();
            let mut plan = self.plan(rewound);
            self.push(&mut plan, &mut outcome).await;
            self.let_go(&mut plan);
            if self.options.dry_run {
                return Ok(outcome);
            }
            self.show(&plan, &mut outcome).await;
            self.forget(&mut plan, &outcome);
            match self.commit(&plan, &head, &done, &asked, &outcome).await {
                Ok(commit) => {
                    if let Some(commit) = commit {
                        tracing::info!(target: "bridge", "{}: {commit}", self.options.branch);
                    }
                    outcome.commit = commit;
                    let head = commit.unwrap_or(head);
                    self.remember(&plan, &head, rewound).await?;
                    self.seen = Some(head);
                    // What it has written itself is no news to it.
                    self.reader.advance(&*self.client, &head).await?;
                    self.count(&outcome);
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

    fn count(&self, outcome: &Outcome) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics().bridge_repositories.set(number(self.known.len()));
        metrics().bridge_unread.clear();
        for repo in outcome.unread.keys() {
            let repository = repo.to_string();
            let label = crate::metrics::Repository { repository };
            metrics().bridge_unread.get_or_create(&label).set(1);
        }
        metrics().bridge_syncs.inc();
        metrics().bridge_pushes.inc_by(outcome.pushed.len() as u64);
        metrics().bridge_refused.inc_by(outcome.failed.len() as u64);
    }

    /// Returns the head of the branch, which is born if it has to be.
    async fn branch(&self) -> Result<Option<ObjectId>> {
        let branch = &self.options.branch;
        if let Some(head) = self.client.head(branch).await? {
            return Ok(Some(head));
        }
        if self.options.dry_run {
            return Ok(None);
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
                // Somebody else was faster.
                match self.client.head(branch).await? {
                    Some(head) => Ok(Some(head)),
                    None => Err(error),
                }
            }
            born => born.map(Some),
        }
    }

    fn sync_branch(&self) -> Result<BranchName> {
        let name = [self.options.branch.as_bytes(), b".sync"].concat();
        Ok(BranchName::new(name)?)
    }

    /// Reads, once, what was agreed on and noted before a restart.
    pub async fn recall(&mut self) -> Result<()> {
        if self.memory.is_some() {
            return Ok(());
        }
        let mut memory = Reader::default();
        if let Some(head) = self.client.head(&self.sync_branch()?).await? {
            memory.advance(&*self.client, &head).await?;
            self.notes.load(&*self.client, &head).await?;
        }
        self.checks = checks::Shown::read(&self.notes);
        self.memory = Some(memory);
        Ok(())
    }

    /// Tells whether the branch lost what was synchronised.
    async fn is_rewound(&self, head: &ObjectId) -> Result<bool> {
        if self.seen.as_ref() == Some(head) {
            return Ok(false);
        }
        let noted = self.notes.get(HEAD);
        let Some(old) = noted.and_then(|text| ObjectId::from_hex(text.trim().as_bytes())) else {
            return Ok(false);
        };
        match self.client.merge_bases(&old, head).await {
            Ok(bases) => Ok(!bases.contains(&old)),
            // It is not even there any more.
            Err(error) if error.kind() == Kind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn can(&self, resource: &Resource<'_>) -> super::capabilities::Ops {
        self.options.capabilities.on(resource)
    }

    fn keep(&self) -> Keep {
        Keep(self.options.keep_closed)
    }

    fn plan(&self, rewound: bool) -> Plan {
        let mut branch = self.reader.snapshot().clone();
        // A mark on a repository that is not followed asks for it.
        for repo in self.reader.dirty().repos.intersection(&self.known) {
            branch.add_repo(repo);
        }
        for repo in self.listed.values().flatten() {
            branch.add_repo(repo);
        }
        let mut unread = Snapshot::default();
        for repo in branch.repos.difference(&self.known) {
            unread.merge(branch.of(repo));
        }
        for repo in &unread.repos {
            branch.remove(&Id::Repo(repo.clone()));
        }
        let remembered = self.memory.as_ref();
        let remembered = remembered.filter(|memory| memory.at().is_some() && !rewound);
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
        let too_many = deletions > DELETIONS && !self.options.allow_deletes;
        self.refused.retain(|(push, _)| plan.pushes.contains(push));
        for push in std::mem::take(&mut plan.pushes) {
            if self.options.dry_run {
                outcome.pushed.push(push);
                continue;
            }
            let refused = self.refused.iter().find(|(refused, _)| *refused == push);
            let pushed = match (&push, refused) {
                (Push::RemoveRef(..), _) if too_many => Err(api::Error::Rejected(format!(
                    "{deletions} refs would be removed at once, which needs --allow-deletes"
                ))),
                // It was told already, and the answer would be the same.
                (_, Some((_, error))) => {
                    let error = error.clone();
                    plan.failed(&push, self.reader.snapshot());
                    outcome.failed.push((push, error));
                    continue;
                }
                (push, None) => self.api.push(push).await,
            };
            match pushed {
                Ok(made) => {
                    tracing::info!(target: "bridge", "{}: told", push.id());
                    if let Push::SetRef(repo, _, head) = &push {
                        self.reach(plan, repo, head, outcome).await;
                    }
                    self.believe(plan, &push, made);
                    outcome.pushed.push(push);
                }
                Err(error) => {
                    tracing::warn!(target: "bridge", "{}: {error}", push.id());
                    plan.failed(&push, self.reader.snapshot());
                    if let (Push::Comment(repo, number, _), api::Error::Unreachable(_)) =
                        (&push, &error)
                    {
                        self.unsure.insert((repo.clone(), *number));
                    }
                    if !error.may_pass() && !too_many {
                        self.refused.push((push.clone(), error.clone()));
                    }
                    outcome.failed.push((push, error));
                }
            }
        }
    }

    /// Pull requests that are closed now leave the branch, unless they are kept.
    fn let_go(&self, plan: &mut Plan) {
        let (keep, prs) = (self.keep(), &self.forge.prs);
        let before = plan.wanted.prs.len();
        plan.wanted.prs.retain(|key, _| {
            let closed = prs.get(key).filter(|pr| pr.state == PrState::Closed);
            closed.is_none_or(|pr| keep.keeps(pr))
        });
        if plan.wanted.prs.len() < before {
            plan.wanted.forget_commits();
        }
    }

    /// Statuses of commits that are no heads any more, because of what GitHub
    /// was told, leave the branch; not those it did not take.
    fn forget(&mut self, plan: &mut Plan, outcome: &Outcome) {
        self.prune();
        let failed: BTreeSet<Id> = outcome.failed.iter().map(|(push, _)| push.id()).collect();
        let (known, forge) = (&self.known, &self.forge.statuses);
        plan.wanted.statuses.retain(|key, _| {
            let (repo, sha, context) = key;
            let id = || Id::Status(repo.clone(), sha.clone(), context.clone());
            !known.contains(repo) || forge.contains_key(key) || failed.contains(&id())
        });
        plan.wanted.forget_commits();
    }

    /// What GitHub took is what it is now.
    fn believe(&mut self, plan: &mut Plan, push: &Push, made: Option<Comment>) {
        match push {
            Push::Pr(repo, id, set, _) => {
                let now = || jiff::Timestamp::now().to_string();
                let closed_at = match set.state {
                    PrState::Open => None,
                    PrState::Closed => set.closed_at.clone().or_else(|| Some(now())),
                };
                for side in [&mut self.forge, &mut plan.wanted] {
                    if let Some(pr) = side.prs.get_mut(&(repo.clone(), *id)) {
                        pr.title = set.title.clone();
                        pr.base = set.base.clone();
                        pr.state = set.state;
                        pr.closed_at = closed_at.clone();
                    }
                }
            }
            Push::Comment(repo, id, draft) => {
                let posted = made.unwrap_or_else(|| Comment {
                    id: 0,
                    user: String::new(),
                    body: marked(repo, *id, draft),
                });
                for side in [&mut self.forge, &mut plan.wanted] {
                    if let Some(pr) = side.prs.get_mut(&(repo.clone(), *id)) {
                        pr.comments.push(posted.clone());
                    }
                }
            }
            Push::Edit(repo, id, said) => {
                let now = made.as_ref().unwrap_or(said);
                for side in [&mut self.forge, &mut plan.wanted] {
                    let pr = side.prs.get_mut(&(repo.clone(), *id));
                    let mut all = pr.into_iter().flat_map(|pr| &mut pr.comments);
                    if let Some(comment) = all.find(|comment| comment.id == said.id) {
                        comment.body = now.body.clone();
                    }
                }
            }
            Push::Status(repo, sha, context, status) => {
                self.forge.add_status(repo, sha, context, status.clone());
                self.owe(repo, sha, context);
            }
            Push::SetRef(repo, name, head) => self.forge.add_ref(repo, name, head.clone()),
            Push::RemoveRef(repo, name) => {
                self.forge.remove(&Id::Ref(repo.clone(), name.clone()));
            }
        }
    }
}
