//! The targets that are kept up to date, and who depends on what, so that a
//! change leads to those it matters to and to nobody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::ci::config::{Config, Project, Source, Steps};
use crate::ci::engine::evaluate::{Has, Verdict, remembered};
use crate::ci::engine::results::Shared;
use crate::ci::history::{self, Record};
use crate::ci::layout::{Output, Place, Target};
use crate::forge::{Id, PrState, Repo, Sha, Snapshot};

/// A target, as it was evaluated last.
#[derive(Default)]
pub(super) struct State {
    pub sha: Sha,
    /// What its history says; nothing before that was read.
    pub record: Option<Record>,
    /// The commit `cells` are for.
    pub evaluated: Option<Sha>,
    pub cells: BTreeMap<String, Has>,
    /// Which cells each waits for.
    pub needs: BTreeMap<String, Vec<String>>,
    /// The last head whose cells had all ended, where that is known.
    pub tested: Option<Option<Sha>>,
    depends: BTreeSet<Id>,
}

impl State {
    pub(super) fn outputs(&self) -> BTreeMap<String, Output> {
        let each = self.cells.iter();
        each.map(|(cell, has)| (cell.clone(), has.output.clone()))
            .collect()
    }

    /// Takes what the store remembers of the target.
    pub(super) fn remember(&mut self, record: Record) {
        if self.evaluated.is_none() {
            self.cells = remembered(&record);
            self.evaluated = record.source.clone();
        }
        self.record = Some(record);
    }
}

/// A project, ready for use.
pub(super) struct Tested {
    pub project: Project,
    /// The steps of the engine's file; none where the tree has them.
    pub here: Arc<Steps>,
}

/// All targets.
pub(super) struct Targets {
    pub projects: BTreeMap<Repo, Tested>,
    canaries: Vec<Target>,
    states: BTreeMap<Target, State>,
    /// Targets by the commit they are at.
    at: HashMap<(Repo, Sha), BTreeSet<Target>>,
    /// Targets by what they depend on beside themselves.
    dependents: HashMap<Id, BTreeSet<Target>>,
}

impl Targets {
    pub(super) fn new(config: &Config, canaries: Vec<Target>) -> Self {
        let projects = config.projects.iter().map(|project| {
            let here = match &project.steps {
                Source::Here(steps) => steps.clone(),
                Source::Tree { .. } => Steps::default(),
            };
            let tested = Tested {
                project: project.clone(),
                here: Arc::new(here),
            };
            (project.repo.clone(), tested)
        });
        Self {
            projects: projects.collect(),
            canaries,
            states: BTreeMap::new(),
            at: HashMap::new(),
            dependents: HashMap::new(),
        }
    }

    /// Returns the head of a target, if it is one that is tested.
    fn head<'a>(&self, target: &Target, snapshot: &'a Snapshot) -> Option<&'a Sha> {
        let tested = self.projects.get(&target.repo)?;
        if !self.canaries.is_empty() && !self.canaries.contains(target) {
            return None;
        }
        let place = match &target.place {
            Place::Ref(name) => name.as_bytes().to_vec(),
            Place::Pr(_) => target.place.to_string().into_bytes(),
        };
        if !tested.project.targets.contain(place) {
            return None;
        }
        match &target.place {
            Place::Ref(name) => snapshot.refs.get(&(target.repo.clone(), name.clone())),
            Place::Pr(number) => {
                let pr = snapshot.prs.get(&(target.repo.clone(), *number))?;
                (pr.state == PrState::Open).then_some(&pr.head)
            }
        }
    }

    /// Brings one target up to date with the snapshot. What it wanted, where it
    /// is gone, nobody wants any more.
    fn follow(&mut self, target: &Target, snapshot: &Snapshot, shared: &Shared) -> bool {
        let head = self.head(target, snapshot).cloned();
        let Some(sha) = head else {
            let Some(state) = self.states.remove(target) else {
                return false;
            };
            self.leave(target, &state.sha);
            for id in &state.depends {
                self.independent(target, id);
            }
            for (cell, has) in &state.cells {
                shared.want(&(target.clone(), cell.clone()), has.branch.as_ref(), None);
            }
            return false;
        };
        let state = self.states.entry(target.clone()).or_default();
        if state.sha == sha {
            return true;
        }
        let old = std::mem::replace(&mut state.sha, sha.clone());
        // What `changed` compares with from now on.
        if state.evaluated.as_ref() == Some(&old) && history::is_tested(&state.outputs()) {
            state.tested = Some(Some(old.clone()));
        }
        self.leave(target, &old);
        let key = (target.repo.clone(), sha);
        self.at.entry(key).or_default().insert(target.clone());
        true
    }

    fn leave(&mut self, target: &Target, sha: &Sha) {
        let key = (target.repo.clone(), sha.clone());
        if let Some(there) = self.at.get_mut(&key) {
            there.remove(target);
            if there.is_empty() {
                self.at.remove(&key);
            }
        }
    }

    fn independent(&mut self, target: &Target, id: &Id) {
        if let Some(there) = self.dependents.get_mut(id) {
            there.remove(target);
            if there.is_empty() {
                self.dependents.remove(id);
            }
        }
    }

    /// Takes in all of a snapshot. Returns the targets to be evaluated: all.
    pub(super) fn all(&mut self, snapshot: &Snapshot, shared: &Shared) -> BTreeSet<Target> {
        let refs = snapshot.refs.keys();
        let refs = refs.map(|(repo, name)| Target::of_ref(repo, name));
        let prs = snapshot.prs.keys();
        let prs = prs.map(|(repo, number)| Target::pr(repo, *number));
        let mut known: BTreeSet<Target> = refs.chain(prs).collect();
        known.extend(self.states.keys().cloned());
        known.retain(|target| self.follow(target, snapshot, shared));
        known
    }

    /// Takes in what changed. Returns the targets to be evaluated.
    pub(super) fn touched(
        &mut self,
        touched: &BTreeSet<Id>,
        snapshot: &Snapshot,
        shared: &Shared,
    ) -> BTreeSet<Target> {
        if touched.iter().any(|id| matches!(id, Id::Repo(_))) {
            return self.all(snapshot, shared);
        }
        let mut due = BTreeSet::new();
        for id in touched {
            let target = match id {
                Id::Pr(repo, number) => Some(Target::pr(repo, *number)),
                Id::Ref(repo, name) => Some(Target::of_ref(repo, name)),
                _ => None,
            };
            due.extend(target.filter(|target| self.follow(target, snapshot, shared)));
            due.extend(self.dependents.get(id).into_iter().flatten().cloned());
        }
        due
    }

    pub(super) fn get(&self, target: &Target) -> Option<&State> {
        self.states.get(target)
    }

    pub(super) fn get_mut(&mut self, target: &Target) -> Option<&mut State> {
        self.states.get_mut(target)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Target, &State)> {
        self.states.iter()
    }

    /// Returns the targets that are at a commit.
    pub(super) fn at(&self, repo: &Repo, sha: &Sha) -> impl Iterator<Item = (&Target, &State)> {
        let there = self.at.get(&(repo.clone(), sha.clone()));
        let there = there.into_iter().flatten();
        there.filter_map(|target| Some((target, self.states.get(target)?)))
    }

    /// Takes the verdict on a target at a commit.
    pub(super) fn take(&mut self, target: &Target, sha: &Sha, verdict: Verdict, shared: &Shared) {
        let Some(state) = self
            .states
            .get_mut(target)
            .filter(|state| state.sha == *sha)
        else {
            // It has gone, or moved on, and is evaluated again.
            return;
        };
        let same = state.evaluated.as_ref() == Some(sha);
        if let Some(tested) = verdict.tested {
            state.tested.get_or_insert(tested);
        }
        let mut cells = verdict.cells;
        state.needs = verdict.needs;
        for (cell, has) in &mut cells {
            let old = state.cells.get(cell).and_then(|old| old.branch.clone());
            if has.branch.is_none() && same {
                // What it will want is not known yet: it may be what it has.
                has.branch = old;
                continue;
            }
            let want = (target.clone(), cell.clone());
            shared.want(&want, old.as_ref(), has.branch.as_ref());
        }
        for (cell, old) in &state.cells {
            if !cells.contains_key(cell) {
                shared.want(&(target.clone(), cell.clone()), old.branch.as_ref(), None);
            }
        }
        state.cells = cells;
        state.evaluated = Some(sha.clone());
        let depends = verdict.depends;
        let old = std::mem::replace(&mut state.depends, depends.clone());
        for id in old.difference(&depends) {
            self.independent(target, id);
        }
        for id in depends.difference(&old) {
            let there = self.dependents.entry(id.clone()).or_default();
            there.insert(target.clone());
        }
    }
}
