//! What the CI is to do: the text of a configuration, read into [`Config`].
//!
//! dk-ci(5) is the contract. Pure: text in, values out. What stays true:
//!
//! - there are two kinds of file: the engine's ([`engine`]), and the one that
//!   a tested tree may hold ([`tree`]), which cannot say what is the engine's
//!   to decide ([`Reserved`]);
//! - every name, glob and pattern in a [`Config`] is legal, every need names
//!   a step, there is no cycle, and no two cells have one name;
//! - steps are in an order in which each comes after those it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ci::Script;
use crate::forge::{Context, RefName, Repo};
use crate::model::{BranchName, TreePath};

mod check;
mod file;
mod graph;
mod matrix;
mod pattern;
mod place;
mod step;
#[cfg(test)]
mod tests;

pub use file::schema;
pub use matrix::{Cell, MAX_CELL};
pub use pattern::{Covers, Globs, Targets};
pub use place::{Fault, Invalid};

/// The name of the file in a tree, where nobody says otherwise.
pub const IN_TREE: &str = ".dk-ci.toml";

/// How long a step may take where it does not say.
pub const TIMEOUT: Duration = Duration::from_secs(3600);

/// What the engine is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the bridge writes what the forge says.
    pub metadata_branch: BranchName,
    /// The context of a step's status: this, and the name of its cell.
    pub status_prefix: Context,
    /// Named pools and how many may be in each at a time.
    pub pools: BTreeMap<String, usize>,
    pub web: Web,
    /// In the order of the file; no repository twice.
    pub projects: Vec<Project>,
}

/// The web page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    pub name: String,
    /// Who may see the pages.
    pub can_read: Vec<Who>,
    /// Who may ask for builds, cancel and approve.
    pub can_build: Vec<Who>,
    /// Where the store can be browsed.
    pub state_repo: Option<String>,
    /// The SHA-256 of the token that opens `/metrics`, as hexadecimal digits.
    pub metrics_token: Option<String>,
    /// What GitHub is asked for at login.
    pub scopes: Vec<String>,
}

/// Some users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Everyone,
    /// `admin`, another local user, or `github:LOGIN`.
    User(String),
    /// Members of an organisation at GitHub.
    Organisation(String),
    /// Those who can read a repository at GitHub.
    Readers(Repo),
}

/// A repository whose targets are kept up to date.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    pub repo: Repo,
    /// Where its commits come from: a URL, or a path.
    pub source: String,
    /// Where people see it, with paths as GitHub has them; no slash at the end.
    pub browse: Option<String>,
    pub targets: Targets,
    /// Branches on the front page.
    pub dashboards: Vec<String>,
    pub steps: Source,
    pub secrets: Vec<Grant>,
    pub untrusted: Untrusted,
    pub keep: Keep,
    /// Bytes of a log after which a step fails.
    pub log_limit: Option<u64>,
}

/// Where a project's steps are written.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// In the engine's file.
    Here(Steps),
    /// In a file of the tested tree, with what only the engine may say.
    Tree { file: TreePath, reserved: Reserved },
}

/// What only the engine may say of the steps a tree describes, by step.
pub type Reserved = BTreeMap<String, Privileges>;

/// What a step gets of the engine beyond what it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// A named pool it takes a place in while it runs.
    pub pool: Option<String>,
    /// Names of secrets it is to have where they are granted.
    pub secrets: Vec<String>,
    /// Refs of other repositories that it depends on too.
    pub also: Vec<Also>,
    /// Another CI's status on the same commit that is waited for.
    pub after_status: Option<Context>,
}

/// A ref of another repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Also {
    pub repo: Repo,
    pub name: RefName,
}

/// A secret of the engine and who may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The variable it is given in, and its file in the folder of secrets.
    pub name: String,
    pub steps: BTreeSet<String>,
    pub refs: Targets,
}

/// What becomes of a pull request whose head lies in another repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Untrusted {
    /// Nothing, until somebody approves of its head.
    #[default]
    Approve,
    /// It runs in the sandbox.
    Sandbox,
}

/// What is kept of old builds; `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    pub logs: Option<Duration>,
    pub builds: Option<u64>,
}

impl Project {
    /// Returns the secrets a step of a target (`heads/x`) is given.
    pub fn secrets(&self, step: &Step, target: &str) -> Vec<&str> {
        let granted = |secret: &&Grant| {
            step.secrets.contains(&secret.name)
                && secret.steps.contains(&step.name)
                && secret.refs.contain(target)
        };
        let granted = self.secrets.iter().filter(granted);
        granted.map(|secret| secret.name.as_str()).collect()
    }
}

/// The steps of a project, each after those it needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps(Vec<Step>);

impl Steps {
    pub fn iter(&self) -> std::slice::Iter<'_, Step> {
        self.0.iter()
    }

    pub fn get(&self, name: &str) -> Option<&Step> {
        self.0.iter().find(|step| step.name == name)
    }

    /// Returns the step and the cell that a cell's name stands for.
    pub fn cell(&self, name: &str) -> Option<(&Step, &Cell)> {
        let step = self.get(name.split(',').next()?)?;
        let cell = step.cells.iter().find(|cell| cell.name == name)?;
        Some((step, cell))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns only what these names, of steps or cells, stand for, with what
    /// it needs; or the name that stands for nothing.
    pub fn only(&self, names: &[String]) -> Result<Self, String> {
        // The cells wanted of each step; all, where there are none.
        let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut whole: BTreeSet<&str> = BTreeSet::new();
        for name in names {
            let cell = self.cell(name).filter(|(step, _)| step.name != *name);
            match (cell, self.get(name)) {
                (Some((step, cell)), _) => {
                    wanted.entry(&step.name).or_default().insert(&cell.name);
                }
                (None, Some(step)) => {
                    whole.insert(&step.name);
                }
                (None, None) => return Err(name.clone()),
            }
        }
        let mut kept = Vec::new();
        // Backwards: each step before what it needs.
        for step in self.0.iter().rev() {
            let all = whole.contains(step.name.as_str());
            let cells = wanted.get(step.name.as_str());
            if !all && cells.is_none() {
                continue;
            }
            whole.extend(step.needs.iter().map(String::as_str));
            let mut step = step.clone();
            if let Some(cells) = cells.filter(|_| !all) {
                step.cells.retain(|cell| cells.contains(cell.name.as_str()));
            }
            kept.push(step);
        }
        kept.reverse();
        Ok(Self(kept))
    }
}

impl FromIterator<Step> for Steps {
    /// As they come: each after those it needs.
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl IntoIterator for Steps {
    type Item = Step;
    type IntoIter = std::vec::IntoIter<Step>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Steps {
    type Item = &'a Step;
    type IntoIter = std::slice::Iter<'a, Step>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Something to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub name: String,
    pub run: Script,
    /// What of the tree it sees, and what its result depends on.
    pub inputs: Globs,
    /// Steps whose outputs it sees, all cells of each. No two of those
    /// outputs lie within each other.
    pub needs: Vec<String>,
    pub timeout: Duration,
    pub when: When,
    pub retry: Option<Retry>,
    pub rerun: Rerun,
    pub env: BTreeMap<String, String>,
    pub pool: Option<String>,
    pub secrets: Vec<String>,
    pub also: Vec<Also>,
    pub after_status: Option<Context>,
    /// One, or with a matrix one for each combination of its values.
    pub cells: Vec<Cell>,
}

impl Step {
    /// Returns the variables a cell is given: those of the step and the values
    /// of the matrix.
    pub fn variables(&self, cell: &Cell) -> BTreeMap<String, String> {
        let mut variables = self.env.clone();
        variables.extend(cell.values.clone());
        variables
    }
}

/// When a step is run at all; otherwise it is a success, `skipped: …`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    /// Only on these branches, written without `heads/`.
    pub branch: Option<Targets>,
    /// Only where one of these files changed.
    pub changed: Option<Globs>,
}

/// How often, and for which failures, a step is tried once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub times: u32,
    pub on: Vec<RetryOn>,
}

impl Retry {
    /// Tells whether a failure is one of those it is for. `code` is the exit
    /// status, where there is one.
    pub fn is_for(&self, code: Option<i32>, timed_out: bool) -> bool {
        self.on.iter().any(|on| match on {
            RetryOn::Failure => !timed_out,
            RetryOn::Timeout => timed_out,
            RetryOn::Exit(wanted) => code == Some(i32::from(*wanted)),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// Anything but a time-out.
    Failure,
    Timeout,
    /// This exit status.
    Exit(u8),
}

/// What becomes of a step whose result was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rerun {
    /// It is run again.
    #[default]
    Lost,
    /// It waits for somebody to ask for it.
    Never,
}

/// Which kind of file a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Engine,
    Tree,
}

/// Returns which kind of file a text means to be.
pub fn kind(text: &str) -> FileKind {
    let engine = |table: toml::Table| {
        ["project", "pool", "web", "metadata-branch", "status-prefix"]
            .iter()
            .any(|key| table.contains_key(*key))
    };
    match text.parse().is_ok_and(engine) {
        true => FileKind::Engine,
        false => FileKind::Tree,
    }
}

/// Reads the engine's configuration.
pub fn engine(text: &str) -> Result<Config, Invalid> {
    let file = file::read(text)?;
    check::engine(text, file)
}

/// Reads the steps a tested tree describes, and adds what only the engine may
/// say of them.
pub fn tree(text: &str, reserved: &Reserved) -> Result<Steps, Invalid> {
    let file = file::read(text)?;
    check::tree(text, file, reserved)
}
