//! How a snapshot lies in a branch, byte for byte as the ancestor's programs
//! read and write it.
//!
//! ```text
//! U/R/.monitor                                  the repository is followed
//! U/R/.dirty  U/R/pr/N/.dirty  U/R/ref/…/.dirty read that again, please
//! U/R/pr/N/{head,head-repo,state,title,base,owner,draft,labels,merged,review}
//! U/R/pr/N/comments/I/{id,user,body}
//! U/R/ref/<c1>/…/<cn>/head
//! U/R/commit/SHA/status/<k1>/…/<km>/{state,description,target_url}
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

use super::{
    Comment, Context, Difference, Id, Pr, PrState, RefName, Repo, Snapshot, Status, StatusState,
};
use crate::client::{At, Client, Error, Result};
use crate::model::{Entry, Kind, ObjectId, TreePath};

mod put;

use put::Puts;
pub use put::{Put, change};

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
    snapshot: Snapshot,
    dirty: Dirty,
    touched: BTreeSet<Id>,
}

/// What a path in the branch is about.
enum About {
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

    pub fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    /// The elements that the last step brought, took away or changed.
    pub fn touched(&self) -> &BTreeSet<Id> {
        &self.touched
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
                elements.extend(self.below(&format!("{repo}/")).filter_map(
                    |(path, _)| match about(path) {
                        About::Element(id) => Some(id),
                        _ => None,
                    },
                ));
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
        Some(Pr {
            head: text("head")?,
            head_repo: text("head-repo").filter(|repo| !repo.is_empty()),
            state,
            title: text("title").unwrap_or_default(),
            base: text("base").unwrap_or_else(|| "master".into()),
            owner: text("owner")?,
            draft: is("draft"),
            merged: is("merged"),
            labels: text("labels")
                .map(|lines| lines.lines().map(str::to_owned).collect())
                .unwrap_or_default(),
            review: text("review").filter(|word| !word.is_empty()),
            comments,
        })
    }

    fn comment(&self, pr: &str, index: usize) -> Option<Comment> {
        let folder = format!("{pr}/comments/{index}");
        let body = format!("{folder}/body").into_bytes();
        Some(Comment {
            id: self.text(&folder, "id")?.parse().ok()?,
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

    fn below(&self, prefix: &str) -> impl Iterator<Item = (&Vec<u8>, &Arc<[u8]>)> {
        let start = Bound::Included(prefix.as_bytes().to_vec());
        let prefix = prefix.to_owned();
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

    /// Returns the edits that make the branch say what `difference` brings, and
    /// nothing more: none where it says so already.
    pub fn edits(&self, difference: &Difference) -> Vec<Put> {
        let mut puts = Puts::default();
        for id in &difference.removed {
            match id {
                Id::Repo(repo) => self.drop(&mut puts, &format!("{repo}/.monitor")),
                Id::Commit(repo, sha) => self.drop(&mut puts, &format!("{repo}/commit/{sha}")),
                Id::Pr(repo, number) => self.drop(&mut puts, &pr_folder(repo, *number)),
                Id::Ref(repo, name) => self.drop(&mut puts, &ref_folder(repo, name)),
                Id::Status(repo, sha, context) => {
                    self.drop_status(&mut puts, &status_folder(repo, sha, context));
                }
            }
        }
        let new = &difference.updated;
        for ((repo, number), pr) in &new.prs {
            self.put_pr(&mut puts, &pr_folder(repo, *number), pr);
        }
        for ((repo, name), head) in &new.refs {
            self.put(&mut puts, &ref_folder(repo, name), "head", head);
        }
        for ((repo, sha, context), status) in &new.statuses {
            let folder = status_folder(repo, sha, context);
            self.put(&mut puts, &folder, "state", status.state.word());
            self.keep(
                &mut puts,
                &folder,
                "description",
                status.description.as_deref(),
            );
            self.keep(
                &mut puts,
                &folder,
                "target_url",
                status.target_url.as_deref(),
            );
        }
        for repo in new.repos.difference(&self.always) {
            self.write(&mut puts, format!("{repo}/.monitor"), Vec::new());
        }
        puts.list
    }

    /// Returns the edits that take the marks away.
    pub fn cleaned(&self) -> Vec<Put> {
        let Dirty { repos, prs, refs } = &self.dirty;
        let mut puts = Puts::default();
        for repo in repos {
            self.drop(&mut puts, &format!("{repo}/.dirty"));
        }
        for (repo, number) in prs {
            self.drop(&mut puts, &format!("{}/.dirty", pr_folder(repo, *number)));
        }
        for (repo, name) in refs {
            self.drop(&mut puts, &format!("{}/.dirty", ref_folder(repo, name)));
        }
        puts.list
    }

    /// Returns the edits that bring the `.error` files of followed repositories
    /// up to date: `reason` says what one is to hold (`Some(None)`: it goes;
    /// `None`: it stays as it is).
    pub fn errors(&self, reason: impl Fn(&Repo) -> Option<Option<String>>) -> Vec<Put> {
        let mut puts = Puts::default();
        for repo in &self.snapshot.repos {
            let path = format!("{repo}/.error");
            match reason(repo) {
                Some(Some(text)) => self.write(&mut puts, path, text.into_bytes()),
                Some(None) => self.drop(&mut puts, &path),
                None => (),
            }
        }
        puts.list
    }

    fn put_pr(&self, puts: &mut Puts, folder: &str, pr: &Pr) {
        self.put(puts, folder, "head", &pr.head);
        self.keep(puts, folder, "head-repo", pr.head_repo.as_deref());
        self.put(puts, folder, "state", pr.state.word());
        self.put(puts, folder, "title", &pr.title);
        self.put(puts, folder, "base", &pr.base);
        self.put(puts, folder, "owner", &pr.owner);
        self.keep(puts, folder, "draft", pr.draft.then_some("true"));
        self.keep(puts, folder, "merged", pr.merged.then_some("true"));
        let labels = pr.labels.join("\n");
        self.keep(
            puts,
            folder,
            "labels",
            (!labels.is_empty()).then_some(&labels),
        );
        self.keep(puts, folder, "review", pr.review.as_deref());
        let mut index = 0;
        for comment in &pr.comments {
            let folder = format!("{folder}/comments/{index}");
            self.put(puts, &folder, "id", &comment.id.to_string());
            self.put(puts, &folder, "user", &comment.user);
            self.write(puts, format!("{folder}/body"), comment.body.clone());
            index += 1;
        }
        while self.has(&format!("{folder}/comments/{index}")) {
            self.drop(puts, &format!("{folder}/comments/{index}"));
            index += 1;
        }
    }

    /// A context goes with all below it, unless another context is there.
    fn drop_status(&self, puts: &mut Puts, folder: &str) {
        let nested = |path: &Vec<u8>| {
            let rest = &path[folder.len() + 1..];
            rest.ends_with(b"/state")
        };
        if !self
            .below(&format!("{folder}/"))
            .any(|(path, _)| nested(path))
        {
            return self.drop(puts, folder);
        }
        for name in ["state", "description", "target_url"] {
            self.drop(puts, &format!("{folder}/{name}"));
        }
    }

    fn put(&self, puts: &mut Puts, folder: &str, name: &str, text: &str) {
        self.write(
            puts,
            format!("{folder}/{name}"),
            format!("{text}\n").into_bytes(),
        );
    }

    fn keep(&self, puts: &mut Puts, folder: &str, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.put(puts, folder, name, text),
            None => self.drop(puts, &format!("{folder}/{name}")),
        }
    }

    fn write(&self, puts: &mut Puts, path: String, content: Vec<u8>) {
        let same = |there: &Arc<[u8]>| **there == *content;
        if !self.files.get(path.as_bytes()).is_some_and(same) {
            puts.list.push(Put {
                path,
                content: Some(content),
            });
        }
    }

    fn drop(&self, puts: &mut Puts, path: &str) {
        // What is above it may have gone already.
        let gone = |end: usize| puts.gone.contains(&path[..end]);
        if self.has(path) && !path.match_indices('/').any(|(end, _)| gone(end)) {
            puts.gone.insert(path.into());
            puts.list.push(Put {
                path: path.into(),
                content: None,
            });
        }
    }

    fn has(&self, path: &str) -> bool {
        self.files.contains_key(path.as_bytes()) || self.below(&format!("{path}/")).next().is_some()
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
