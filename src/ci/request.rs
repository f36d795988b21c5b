//! What people ask of the engine, wherever it runs: files in the store.
//!
//! A mark on a result branch says what is wanted, and stays true while no
//! engine runs; a file in the branch of requests tells a running one where to
//! look. Asking twice is asking once.

use std::collections::BTreeSet;

use crate::ci::cache::{self, Found};
use crate::ci::files;
use crate::ci::history::{self, Record};
use crate::ci::layout::{self, Logs, Place, State, Target};
use crate::client::{At, Client, CommitOptions, Empty, Error, Result};
use crate::forge::Repo;
use crate::model::{BranchName, Kind, ObjectId, Signature, TreePath};

/// What somebody asks for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Rebuild,
    Cancel,
}

impl Wish {
    /// Returns the word that stands in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Cancel => "cancel",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        let known = [Self::Rebuild, Self::Cancel];
        known.into_iter().find(|wish| wish.word() == word)
    }
}

/// Whose results are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    Target(Target),
    /// All targets that were tested at this commit.
    Commit(String),
    /// All targets that there are.
    All,
}

/// Which results are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub which: Which,
    /// A step, or one cell of it. Nothing: all.
    pub step: Option<String>,
    /// Only those that failed.
    pub failed: bool,
}

impl Chosen {
    fn takes(&self, cell: &str, state: State) -> bool {
        let named = match &self.step {
            None => true,
            Some(step) => cell == step || cell.split(',').next() == Some(step),
        };
        named && (!self.failed || state == State::Failure)
    }
}

/// Lets a pull request of a fork run at this commit, and at no other. `by` says
/// who and when: the commit that is made and returned says so for ever.
pub async fn approve(
    client: &dyn Client,
    target: &Target,
    commit: &ObjectId,
    by: Option<Signature>,
) -> Result<ObjectId> {
    let Place::Pr(number) = target.place else {
        let message = format!("{target} is no pull request: it needs no approval");
        return Err(Error::new(Kind::Invalid, message));
    };
    let path = layout::approval_path(&target.repo, number);
    let puts = vec![files::put(path, commit.to_hex())];
    let options = CommitOptions {
        message: Some(format!("Approve {target} at {commit}").into_bytes()),
        author: by,
        empty: Empty::Skip,
        ..CommitOptions::default()
    };
    client.edit(&room(), files::edits(puts), options).await
}

/// Asks for results to be built again. Returns their branches; none that fits
/// is [`Kind::NotFound`]. One that is being built just now is left alone.
pub async fn rebuild(
    client: &dyn Client,
    metadata: &BranchName,
    chosen: &Chosen,
    by: Option<Signature>,
) -> Result<Vec<BranchName>> {
    let branches = chosen_of(client, metadata, chosen, saved).await?;
    if branches.is_empty() {
        return Err(nothing(chosen, "to rebuild"));
    }
    ask(client, &branches, Wish::Rebuild, by).await?;
    Ok(branches)
}

/// Asks for one result to be built again.
pub async fn rebuild_branch(
    client: &dyn Client,
    branch: &BranchName,
    by: Option<Signature>,
) -> Result<()> {
    if !layout::is_result_branch(branch) || client.head(branch).await?.is_none() {
        let message = format!("No job depends on \"{branch}\", so can't rebuild anything");
        return Err(Error::new(Kind::NotFound, message));
    }
    ask(client, std::slice::from_ref(branch), Wish::Rebuild, by).await
}

/// Asks for builds to be stopped. Returns their branches; none that fits is
/// [`Kind::NotFound`].
pub async fn cancel(
    client: &dyn Client,
    metadata: &BranchName,
    chosen: &Chosen,
    by: Option<Signature>,
) -> Result<Vec<BranchName>> {
    let branches = chosen_of(client, metadata, chosen, live).await?;
    if branches.is_empty() {
        return Err(nothing(chosen, "that is being built"));
    }
    ask(client, &branches, Wish::Cancel, by).await?;
    Ok(branches)
}

/// Asks for one build to be stopped.
pub async fn cancel_branch(
    client: &dyn Client,
    branch: &BranchName,
    by: Option<Signature>,
) -> Result<()> {
    let stand = cache::load(client, branch).await?;
    if !layout::is_result_branch(branch) || matches!(stand.found, Found::Done(_)) {
        let message = format!("Branch \"{branch}\" is not currently building");
        return Err(Error::new(Kind::NotFound, message));
    }
    ask(client, std::slice::from_ref(branch), Wish::Cancel, by).await
}

/// Asks for builds to be stopped that no target waits for. Returns their
/// branches.
pub async fn cancel_outdated(
    client: &dyn Client,
    metadata: &BranchName,
    by: Option<Signature>,
) -> Result<Vec<BranchName>> {
    let mut wanted = BTreeSet::new();
    for record in records(client, metadata, &Which::All).await? {
        wanted.extend(
            record
                .outputs
                .values()
                .flat_map(|output| live(&output.logs)),
        );
    }
    let mut outdated = Vec::new();
    for branch in client.branches().await? {
        if layout::is_result_branch(&branch.name) && !wanted.contains(&branch.name) {
            let stand = cache::load_at(client, &branch.name, branch.head).await?;
            if stand.found == Found::Interrupted {
                outdated.push(branch.name);
            }
        }
    }
    ask(client, &outdated, Wish::Cancel, by).await?;
    Ok(outdated)
}

/// Returns the branches of the results that are meant, each once: those `of`
/// picks from where their logs are.
async fn chosen_of(
    client: &dyn Client,
    metadata: &BranchName,
    chosen: &Chosen,
    of: fn(&Logs) -> Vec<BranchName>,
) -> Result<Vec<BranchName>> {
    let mut branches = BTreeSet::new();
    for record in records(client, metadata, &chosen.which).await? {
        let outputs = record.outputs.iter();
        let meant = outputs.filter(|(cell, output)| chosen.takes(cell, output.result.state));
        branches.extend(meant.flat_map(|(_, output)| of(&output.logs)));
    }
    Ok(branches.into_iter().collect())
}

fn nothing(chosen: &Chosen, what: &str) -> Error {
    let place = match &chosen.which {
        Which::Target(target) => format!(" in {target}"),
        Which::Commit(sha) => format!(" of commit {sha}"),
        Which::All => String::new(),
    };
    let which = match (&chosen.step, chosen.failed) {
        (Some(step), _) => format!("a result of step {step:?} {what}"),
        (None, true) => format!("a failed result {what}"),
        (None, false) => format!("a result {what}"),
    };
    Error::NotFound {
        what: format!("{which}{place}"),
    }
}

fn saved(logs: &Logs) -> Vec<BranchName> {
    match logs {
        Logs::Saved(saved) => ours(&saved.branch),
        Logs::Pair(a, b) => [saved(a), saved(b)].concat(),
        Logs::None | Logs::Live { .. } => Vec::new(),
    }
}

fn live(logs: &Logs) -> Vec<BranchName> {
    match logs {
        Logs::Live { branch } => ours(branch),
        Logs::Pair(a, b) => [live(a), live(b)].concat(),
        Logs::None | Logs::Saved(_) => Vec::new(),
    }
}

fn ours(branch: &str) -> Vec<BranchName> {
    let branch = BranchName::new(branch).ok();
    branch
        .into_iter()
        .filter(layout::is_result_branch)
        .collect()
}

/// Returns what the histories say of those that are meant.
async fn records(client: &dyn Client, metadata: &BranchName, which: &Which) -> Result<Vec<Record>> {
    match which {
        Which::Target(target) => {
            let record = history::load(client, target).await?;
            if record.commit.is_none() {
                let what = format!("a history of {target}");
                return Err(Error::NotFound { what });
            }
            Ok(vec![record])
        }
        Which::Commit(sha) => {
            let mut records = Vec::new();
            for repo in indexed(client).await? {
                for (_, commit) in history::at_commit(client, &repo, sha).await? {
                    records.push(history::load_at(client, &commit).await?);
                }
            }
            Ok(records)
        }
        Which::All => {
            let forge = client.head(metadata).await?;
            let mut records = Vec::new();
            for branch in client.branches().await? {
                let Some(target) = layout::read_status_branch(&branch.name) else {
                    continue;
                };
                if exists(client, forge, &target).await? {
                    records.push(history::load_at(client, &branch.head).await?);
                }
            }
            Ok(records)
        }
    }
}

/// Tells whether the forge still has a target.
async fn exists(client: &dyn Client, forge: Option<ObjectId>, target: &Target) -> Result<bool> {
    let Some(forge) = forge else {
        return Ok(false);
    };
    let path = match &target.place {
        Place::Pr(number) => format!("{}/pr/{number}/head", target.repo),
        place @ Place::Ref(_) => format!("{}/ref/{place}/head", target.repo),
    };
    let stat = client
        .stat(&At::Commit(forge), &TreePath::new(path)?)
        .await?;
    Ok(stat.is_some())
}

/// Returns the repositories of the commit index.
async fn indexed(client: &dyn Client) -> Result<Vec<Repo>> {
    let branch = BranchName::new(layout::COMMIT_INDEX)?;
    let Some(head) = client.head(&branch).await? else {
        return Ok(Vec::new());
    };
    let at = At::Commit(head);
    let mut repos = Vec::new();
    for user in client.list(&at, &TreePath::root(), false).await? {
        for name in client.list(&at, &user.path, false).await? {
            let text = |path: &TreePath| String::from_utf8_lossy(path.as_bytes()).into_owned();
            repos.extend(Repo::new(&text(&user.path), &text(&name.path)));
        }
    }
    Ok(repos)
}

/// Marks results, and tells a running engine.
async fn ask(
    client: &dyn Client,
    branches: &[BranchName],
    wish: Wish,
    by: Option<Signature>,
) -> Result<()> {
    if branches.is_empty() {
        return Ok(());
    }
    for branch in branches {
        let marked = match wish {
            Wish::Rebuild => cache::request_rebuild(client, branch).await,
            Wish::Cancel => cache::request_cancel(client, branch).await,
        };
        match marked {
            // It waits for its turn, or was dropped: there is nothing to mark.
            Err(error) if error.kind() == Kind::NotFound => (),
            marked => _ = marked?,
        }
    }
    let lines: Vec<String> = branches.iter().map(ToString::to_string).collect();
    let message = match &lines[..] {
        [one] => format!("Please {} {one}", wish.word()),
        _ => format!(
            "Please {} {} results\n\n{}",
            wish.word(),
            lines.len(),
            lines.join("\n")
        ),
    };
    let put = |branch| files::put(layout::request_path(branch), wish.word());
    let options = CommitOptions {
        message: Some(message.into_bytes()),
        author: by,
        ..CommitOptions::default()
    };
    let puts = branches.iter().map(put).collect();
    client.edit(&room(), files::edits(puts), options).await?;
    Ok(())
}

/// The branch of requests and approvals.
pub(super) fn room() -> BranchName {
    BranchName::new(layout::ROOM).expect("a legal name")
}
