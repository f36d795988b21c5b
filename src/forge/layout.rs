//! How a snapshot lies in a branch, byte for byte as the ancestor's programs
//! read and write it.
//!
//! ```text
//! U/R/.monitor                                  the repository is followed
//! U/R/.dirty  U/R/pr/N/.dirty  U/R/ref/…/.dirty read that again, please
//! U/.monitor                                    every repository of U is followed
//! U/R/pr/N/{head,head-repo,state,title,base,owner,draft,labels,merged,closed-at,review}
//! U/R/pr/N/comments/I/{id,user,body}
//! U/R/pr/N/comments/NAME/body                   somebody wants to have that said
//! U/R/ref/<c1>/…/<cn>/head
//! U/R/commit/SHA/status/<k1>/…/<km>/{state,description,target_url}
//! U/R/commit/SHA/status/<k1>/…/<km>/rebuild-requested  build it again, please
//! U/R/.error  U/.error                          why it cannot be read now
//! ```
//!
//! Texts end with one newline and are trimmed when read; a comment's body is
//! kept as it is. A [`Reader`] goes from commit to commit by what differs, and
//! says the same as one that reads the last of them from the beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::ops::Bound;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::{Comment, Context, Id, Pr, PrState, RefName, Repo, Snapshot, Status, StatusState};
use crate::client::{At, Client, Error, Event, Records, Result, Since, WatchQuery};
use crate::model::{BranchName, Entry, Kind, ObjectId, TreePath};

mod edits;
mod put;

pub use put::{Put, add, change};

/// Blobs asked for together.
const TOGETHER: usize = 128;
/// What is longer is no metadata, and passed over.
const LONGEST: u64 = 1 << 20;

/// What somebody wants to have read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    pub repos: BTreeSet<Repo>,
    /// Of followed repositories only.
    pub prs: BTreeSet<(Repo, u64)>,
    pub refs: BTreeSet<(Repo, RefName)>,
}

impl Dirty {
    pub fn is_empty(&self) -> bool {
        self.repos.is_empty() && self.prs.is_empty() && self.refs.is_empty()
    }
}

/// The branch as it is at one commit.
#[derive(Default)]
pub struct Reader {
    at: Option<ObjectId>,
    /// Repositories followed without a `.monitor`, which is left alone.
    always: BTreeSet<Repo>,
    /// What lies below `U/R`, by path.
    files: BTreeMap<Vec<u8>, Arc<[u8]>>,
    /// Users and organisations all of whose repositories are followed.
    accounts: BTreeSet<String>,
    snapshot: Snapshot,
    dirty: Dirty,
    touched: BTreeSet<Id>,
}

/// What stands beside a status' `state` when somebody wants it made anew.
pub const REBUILD: &str = "rebuild-requested";

/// What a path in the branch is about.
enum About {
    Account(String),
    Monitor(Repo),
    /// Why it could not be read.
    Error,
    Dirty(Repo),
    DirtyPr(Repo, u64),
    DirtyRef(Repo, RefName),
    Element(Id),
    Nothing,
}

fn about(path: &[u8]) -> About {
    let steps: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    let text = |step: &[u8]| std::str::from_utf8(step).ok().map(str::to_owned);
    let repo = || Repo::new(&text(steps.first()?)?, &text(steps.get(1)?)?);
    match steps[..] {
        [user, b".monitor"] => {
            return match text(user).filter(|user| Repo::new(user, "x").is_some()) {
                Some(user) => About::Account(user),
                None => About::Nothing,
            };
        }
        [_, b".error"] => return About::Error,
        _ => (),
    }
    let Some(repo) = repo() else {
        return About::Nothing;
    };
    let joined = |steps: &[&[u8]]| {
        steps
            .iter()
            .fold(TreePath::root(), |path, step| path.join(step))
    };
    match &steps[2..] {
        [] | [b".monitor"] => About::Monitor(repo),
        [b".error"] => About::Error,
        [b".dirty"] => About::Dirty(repo),
        [b"pr", number, rest @ ..] if !rest.is_empty() => {
            match text(number).and_then(|number| number.parse().ok()) {
                Some(number) if *rest == [b".dirty"] => About::DirtyPr(repo, number),
                Some(number) => About::Element(Id::Pr(repo, number)),
                None => About::Nothing,
            }
        }
        [b"ref", name @ .., b".dirty"] if !name.is_empty() => About::DirtyRef(repo, joined(name)),
        [b"ref", name @ .., _] if !name.is_empty() => About::Element(Id::Ref(repo, joined(name))),
        [b"commit", sha, b"status", context @ .., _] if !context.is_empty() => match text(sha) {
            Some(sha) => About::Element(Id::Status(repo, sha, joined(context))),
            None => About::Nothing,
        },
        _ => About::Nothing,
    }
}

impl Reader {
    /// Reads these repositories, whether the branch says they are followed or not.
    pub fn following(repos: BTreeSet<Repo>) -> Self {
        let mut reader = Self {
            always: repos,
            ..Self::default()
        };
        for repo in &reader.always {
            reader.snapshot.add_repo(repo);
        }
        reader
    }

    /// The commit it has read last.
    pub fn at(&self) -> Option<&ObjectId> {
        self.at.as_ref()
    }

    /// What the followed repositories are.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The users and organisations all of whose repositories are followed.
    pub fn accounts(&self) -> &BTreeSet<String> {
        &self.accounts
    }

    /// Tells whether the branch holds anything of a repository.
    pub fn knows(&self, repo: &Repo) -> bool {
        self.has(&repo.to_string())
    }

    /// Returns the repositories that have an `.error`.
    pub fn errors(&self) -> BTreeMap<String, String> {
        let found = self.files.iter().filter_map(|(path, text)| {
            let place = path.strip_suffix(b"/.error")?;
            let place = std::str::from_utf8(place).ok()?;
            Some((
                place.to_owned(),
                String::from_utf8_lossy(text).trim().to_owned(),
            ))
        });
        found.collect()
    }

    /// Tells whether somebody wants a status made anew: [`REBUILD`] is beside it.
    pub fn is_asked(&self, repo: &Repo, sha: &str, context: &Context) -> bool {
        let folder = status_folder(repo, sha, context);
        self.has(&format!("{folder}/{REBUILD}"))
    }

    pub fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    /// The elements that the last step brought, took away or changed.
    pub fn touched(&self) -> &BTreeSet<Id> {
        &self.touched
    }

    /// Tells when a branch is at another commit than was read last.
    pub fn watch(&self, client: &dyn Client, branch: &BranchName) -> Records<Event> {
        client.watch(WatchQuery {
            branch: branch.clone(),
            path: TreePath::root(),
            since: self.at.map_or(Since::Beginning, Since::Commit),
            latest: true,
            unchanged: false,
        })
    }

    /// Goes to another commit, reading only what differs. After a failure it
    /// stands where it stood.
    pub async fn advance(&mut self, client: &dyn Client, to: &ObjectId) -> Result<()> {
        if self.at.as_ref() == Some(to) {
            self.touched.clear();
            return Ok(());
        }
        let mut changed: Vec<(Vec<u8>, Option<Entry>)> = Vec::new();
        match self.at {
            Some(at) => {
                let root = TreePath::root();
                for change in client
                    .diff(&At::Commit(at), &At::Commit(*to), &root)
                    .await?
                {
                    changed.push((change.path.as_bytes().to_vec(), change.new));
                }
            }
            None => {
                let mut items = client.walk(&At::Commit(*to), &TreePath::root(), false);
                while let Some(item) = items.next().await {
                    let item = item?;
                    changed.push((item.path.as_bytes().to_vec(), Some(item.entry)));
                }
            }
        }
        changed.retain(|(path, _)| !matches!(about(path), About::Nothing));
        let contents = contents(client, &changed).await?;
        self.touched = self.take(changed, &contents);
        self.at = Some(*to);
        Ok(())
    }

    fn take(
        &mut self,
        changed: Vec<(Vec<u8>, Option<Entry>)>,
        contents: &BTreeMap<ObjectId, Arc<[u8]>>,
    ) -> BTreeSet<Id> {
        let (mut repos, mut elements) = (BTreeSet::new(), BTreeSet::new());
        let mut marked = false;
        for (path, entry) in changed {
            match about(&path) {
                About::Account(user) => {
                    match entry.is_some() {
                        true => self.accounts.insert(user),
                        false => self.accounts.remove(&user),
                    };
                }
                About::Monitor(repo) => {
                    repos.insert(repo);
                }
                About::Element(id) => {
                    elements.insert(id);
                }
                // Marks are looked for below, where they are.
                About::Dirty(_) | About::DirtyPr(..) | About::DirtyRef(..) => marked = true,
                About::Error | About::Nothing => (),
            }
            match entry.and_then(|entry| contents.get(&entry.id)) {
                Some(content) => self.files.insert(path, content.clone()),
                None => self.files.remove(&path),
            };
        }
        for repo in &repos {
            self.snapshot.remove(&Id::Repo(repo.clone()));
            let monitor = format!("{repo}/.monitor").into_bytes();
            if self.always.contains(repo) || self.files.contains_key(&monitor) {
                self.snapshot.add_repo(repo);
                elements.extend(
                    self.below(&repo.to_string())
                        .filter_map(|(path, _)| match about(path) {
                            About::Element(id) => Some(id),
                            _ => None,
                        }),
                );
            }
        }
        let mut left = BTreeSet::new();
        for id in &elements {
            if self.snapshot.repos.contains(id.repo()) {
                left.extend(self.snapshot.commit_of(id));
                self.snapshot.remove(id);
                self.read(id);
            }
        }
        self.snapshot.forget(left);
        if marked || !repos.is_empty() {
            self.dirty = self.marks();
        }
        elements.extend(repos.into_iter().map(Id::Repo));
        elements
    }

    /// Puts an element into the snapshot as the files have it.
    fn read(&mut self, id: &Id) {
        match id {
            Id::Pr(repo, number) => {
                if let Some(pr) = self.pr(repo, *number) {
                    self.snapshot.add_pr(repo, *number, pr);
                }
            }
            Id::Ref(repo, name) => {
                if let Some(head) = self.text(&ref_folder(repo, name), "head") {
                    self.snapshot.add_ref(repo, name, head);
                }
            }
            Id::Status(repo, sha, context) => {
                let folder = status_folder(repo, sha, context);
                if let Some(state) = self.text(&folder, "state") {
                    let known = StatusState::ALL.iter().find(|known| known.word() == state);
                    if known.is_none() {
                        tracing::error!(target: "bridge", "{id}: unknown state {state:?}");
                    }
                    let status = Status::new(
                        known.copied().unwrap_or(StatusState::Failure),
                        self.text(&folder, "description").as_deref(),
                        self.text(&folder, "target_url").as_deref(),
                    );
                    self.snapshot.add_status(repo, sha, context, status);
                }
            }
            Id::Repo(_) | Id::Commit(..) => (),
        }
    }

    fn pr(&self, repo: &Repo, number: u64) -> Option<Pr> {
        let folder = pr_folder(repo, number);
        let text = |name: &str| self.text(&folder, name);
        let state = text("state")?;
        let state = match state.as_str() {
            "open" => PrState::Open,
            "closed" => PrState::Closed,
            other => {
                tracing::error!(target: "bridge", "{folder}: unknown state {other:?}");
                PrState::Closed
            }
        };
        let is = |name: &str| text(name).is_some_and(|word| word == "true");
        let mut comments = Vec::new();
        while let Some(comment) = self.comment(&folder, comments.len()) {
            comments.push(comment);
        }
        let drafts = self.drafts(&folder, comments.len());
        Some(Pr {
            head: text("head")?,
            head_repo: text("head-repo").filter(|repo| !repo.is_empty()),
            state,
            title: text("title").unwrap_or_default(),
            base: text("base").unwrap_or_else(|| "master".into()),
            owner: text("owner")?,
            draft: is("draft"),
            merged: is("merged"),
            closed_at: text("closed-at").filter(|time| !time.is_empty()),
            labels: text("labels")
                .map(|lines| lines.lines().map(str::to_owned).collect())
                .unwrap_or_default(),
            review: text("review").filter(|word| !word.is_empty()),
            comments,
            drafts,
        })
    }

    /// Returns what is to be posted: bodies beside the first `posted` comments.
    fn drafts(&self, pr: &str, posted: usize) -> Vec<Vec<u8>> {
        let prefix = format!("{pr}/comments/");
        let mut found = Vec::new();
        for (path, body) in self.below(prefix.trim_end_matches('/')) {
            let Some(name) = path[prefix.len()..].strip_suffix(b"/body") else {
                continue;
            };
            let folder = String::from_utf8_lossy(&path[..prefix.len() + name.len()]);
            // One with an id was posted, and its number is out of order.
            let id = self.text(&folder, "id").unwrap_or_default();
            let number = std::str::from_utf8(name)
                .ok()
                .and_then(|name| name.parse().ok());
            let is_new = number.is_none_or(|number: usize| number >= posted);
            let is_said = body.iter().any(|byte| !byte.is_ascii_whitespace());
            if is_new && is_said && !name.contains(&b'/') && matches!(id.as_str(), "" | "0") {
                found.push((number, body.to_vec()));
            }
        }
        found.sort_by_key(|(number, _)| number.unwrap_or(usize::MAX));
        found.into_iter().map(|(_, body)| body).collect()
    }

    fn comment(&self, pr: &str, index: usize) -> Option<Comment> {
        let folder = format!("{pr}/comments/{index}");
        let body = format!("{folder}/body").into_bytes();
        Some(Comment {
            id: self
                .text(&folder, "id")?
                .parse()
                .ok()
                .filter(|id| index == 0 || *id != 0)?,
            user: self.text(&folder, "user")?,
            body: self
                .files
                .get(&body)
                .map(|body| body.to_vec())
                .unwrap_or_default(),
        })
    }

    fn text(&self, folder: &str, name: &str) -> Option<String> {
        let bytes = self.files.get(format!("{folder}/{name}").as_bytes())?;
        Some(String::from_utf8_lossy(bytes).trim().to_owned())
    }

    /// Returns what lies in a folder, at any depth.
    fn below(&self, folder: &str) -> impl Iterator<Item = (&Vec<u8>, &Arc<[u8]>)> {
        let prefix = format!("{}/", folder.trim_end_matches('/'));
        let start = Bound::Included(prefix.as_bytes().to_vec());
        self.files
            .range((start, Bound::Unbounded))
            .take_while(move |(path, _)| path.starts_with(prefix.as_bytes()))
    }

    fn marks(&self) -> Dirty {
        let mut dirty = Dirty::default();
        for path in self.files.keys().filter(|path| path.ends_with(b"/.dirty")) {
            let followed = |repo: &Repo| self.snapshot.repos.contains(repo);
            match about(path) {
                About::Dirty(repo) => {
                    dirty.repos.insert(repo);
                }
                About::DirtyPr(repo, number) if followed(&repo) => {
                    dirty.prs.insert((repo, number));
                }
                About::DirtyRef(repo, name) if followed(&repo) => {
                    dirty.refs.insert((repo, name));
                }
                _ => (),
            }
        }
        dirty
    }

    fn has(&self, path: &str) -> bool {
        self.files.contains_key(path.as_bytes()) || self.below(path).next().is_some()
    }
}

fn pr_folder(repo: &Repo, number: u64) -> String {
    format!("{repo}/pr/{number}")
}

fn ref_folder(repo: &Repo, name: &RefName) -> String {
    format!("{repo}/ref/{}", String::from_utf8_lossy(name.as_bytes()))
}

fn status_folder(repo: &Repo, sha: &str, context: &Context) -> String {
    let context = String::from_utf8_lossy(context.as_bytes());
    format!("{repo}/commit/{sha}/status/{context}")
}

/// Returns the files of a commit whose paths are `wanted`.
pub async fn files(
    client: &dyn Client,
    commit: &ObjectId,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Vec<(Vec<u8>, Arc<[u8]>)>> {
    let mut found = Vec::new();
    let mut items = client.walk(&At::Commit(*commit), &TreePath::root(), false);
    while let Some(item) = items.next().await {
        let item = item?;
        if wanted(item.path.as_bytes()) {
            found.push((item.path.as_bytes().to_vec(), Some(item.entry)));
        }
    }
    let contents = contents(client, &found).await?;
    let read = found.into_iter().filter_map(|(path, entry)| {
        let content = contents.get(&entry?.id)?.clone();
        Some((path, content))
    });
    Ok(read.collect())
}

/// Reads the blobs of what changed, each once.
async fn contents(
    client: &dyn Client,
    changed: &[(Vec<u8>, Option<Entry>)],
) -> Result<BTreeMap<ObjectId, Arc<[u8]>>> {
    let blobs = changed.iter().filter_map(|(_, entry)| *entry);
    let wanted: BTreeSet<ObjectId> = blobs
        .filter(|entry| entry.mode.is_blob())
        .map(|entry| entry.id)
        .collect();
    let wanted: Vec<ObjectId> = wanted.into_iter().collect();
    let mut found = BTreeMap::new();
    for ids in wanted.chunks(TOGETHER) {
        let readers = client.open_blobs(ids).await?;
        let read = tokio::task::spawn_blocking(move || {
            let mut read = Vec::with_capacity(readers.len());
            for mut reader in readers {
                let mut content = Vec::new();
                reader
                    .by_ref()
                    .take(LONGEST + 1)
                    .read_to_end(&mut content)?;
                read.push(content);
            }
            Ok::<_, std::io::Error>(read)
        });
        let read = match read.await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => {
                return Err(Error::new(
                    Kind::Interrupted,
                    "the runtime is shutting down",
                ));
            }
        };
        for (id, content) in ids.iter().zip(read) {
            if content.len() as u64 <= LONGEST {
                found.insert(*id, content.into());
            }
        }
    }
    Ok(found)
}

fn failed(source: std::io::Error) -> Error {
    Error::Other {
        kind: Kind::Io,
        message: "cannot read the branch".into(),
        hint: None,
        source: Some(Box::new(source)),
    }
}
