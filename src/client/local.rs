//! The contract, answered from a store in this process.
//!
//! The store blocks, so every call goes through its asynchronous face. One
//! task, owned by [`Local`], wakes watches.

mod failure;
mod source;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use crate::client::*;
use crate::model::{HashKind, Time};
pub use crate::store::engine::Durability;
use crate::store::engine::{Engine, ObjectKind, Repository};
use crate::store::face::{self, Feed, Looker};
use crate::store::{self, Store, history, rev, walk};

pub use crate::store::git::abandon;
use failure::error;

/// Returns who the user is outside any store: the environment's
/// `GIT_AUTHOR_*`/`GIT_COMMITTER_*`, the user's Git configuration, or dk's default.
pub fn user() -> Result<Identity> {
    store::git::user().map_err(error)
}

/// How a local store is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub durability: Durability,
    /// Look for a repository at the path and above it, as Git does.
    pub discover: bool,
    /// The program has nothing else to do meanwhile: what is quickly read is
    /// read where it is asked for, which spares a thread.
    pub alone: bool,
}

/// A store in this process.
pub struct Local {
    store: Arc<Store>,
    url: String,
    alone: bool,
    /// Wakes watches; started by the first, stopped with this.
    looker: Looker,
}

impl Local {
    /// Opens a Git repository.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        let engine =
            store::git::Git::open(path, options.durability, options.discover).map_err(error)?;
        let url = engine.path().display().to_string();
        let mut local = Self::new(Arc::new(engine), url);
        local.alone = options.alone;
        Ok(local)
    }

    /// Makes a bare repository, or finds the one that is there. Returns its path.
    pub fn init(path: &Path, hash: HashKind) -> Result<std::path::PathBuf> {
        let engine = store::git::Git::init(path, hash).map_err(error)?;
        Ok(engine.path().to_path_buf())
    }

    /// A store that lives in memory and ends with this value.
    pub fn memory(hash: HashKind) -> Self {
        Self::new(Arc::new(store::memory::Memory::new(hash)), "memory:".into())
    }

    /// Any engine.
    pub fn new(engine: Arc<dyn Engine>, url: String) -> Self {
        Self {
            store: Arc::new(Store::new(engine)),
            url,
            alone: false,
            looker: Looker::default(),
        }
    }

    /// Runs a piece of work where it may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> store::Result<T> + Send + 'static,
    ) -> Result<T> {
        face::run(&self.store, work).await.map_err(error)
    }

    /// As [`Local::run`], for what takes next to no time.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> store::Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.alone {
            return work(&self.store).map_err(error);
        }
        self.run(work).await
    }

    fn feed<B: face::Batch>(
        &self,
        work: impl FnOnce(&Arc<Store>, &mut Feed<B>) -> store::Result<()> + Send + 'static,
    ) -> Records<B::Item> {
        said(face::feed(&self.store, work))
    }

    async fn who(&self, author: Option<Signature>) -> Result<Signature> {
        match author {
            Some(author) => Ok(author),
            None => {
                let identity = self.identity().await?;
                Ok(Signature {
                    name: identity.name.into_bytes(),
                    email: identity.email.into_bytes(),
                    time: Time::now(),
                })
            }
        }
    }
}

/// Says a stream's failures in the words of the contract.
fn said<T: 'static>(records: face::Records<T>) -> Records<T> {
    Box::pin(records.map(|record| record.map_err(error)))
}

#[async_trait::async_trait]
impl Client for Local {
    async fn info(&self) -> Result<StoreInfo> {
        let url = self.url.clone();
        self.read(|store| {
            let repository = store.engine.repository();
            Ok(StoreInfo {
                url,
                id: repository.map(Repository::id).transpose()?,
                id_digits: store.engine.hash_kind().id_len() * 2,
                read_only: store.engine.is_read_only(),
            })
        })
        .await
    }

    async fn identity(&self) -> Result<Identity> {
        self.read(|store| store.identity()).await
    }

    async fn resolve(&self, rev: &Rev) -> Result<ObjectId> {
        let rev = rev.clone();
        self.read(move |store| rev::resolve(&store.objects, &rev))
            .await
    }

    async fn commit(&self, id: &ObjectId) -> Result<Commit> {
        let id = *id;
        self.read(move |store| store.objects.commit(&id)).await
    }

    async fn branches(&self) -> Result<Vec<Branch>> {
        self.run(|store| store.branches()).await
    }

    async fn fetched_branches(&self) -> Result<Vec<Branch>> {
        self.run(|store| store.fetched_branches()).await
    }

    async fn head(&self, branch: &BranchName) -> Result<Option<ObjectId>> {
        let branch = branch.clone();
        self.read(move |store| store.head(&branch)).await
    }

    async fn move_head(
        &self,
        branch: &BranchName,
        to: &ObjectId,
        options: MoveOptions,
    ) -> Result<()> {
        let (branch, to, who) = (branch.clone(), *to, self.who(None).await?);
        self.run(move |store| store.move_head(&branch, &to, options, &who))
            .await
    }

    async fn delete_branch(&self, branch: &BranchName, options: MoveOptions) -> Result<ObjectId> {
        let (branch, who) = (branch.clone(), self.who(None).await?);
        self.run(move |store| store.delete_branch(&branch, options, &who))
            .await
    }

    async fn rename_branch(
        &self,
        from: &BranchName,
        to: &BranchName,
        force: bool,
    ) -> Result<ObjectId> {
        let (from, to, who) = (from.clone(), to.clone(), self.who(None).await?);
        self.run(move |store| store.rename_branch(&from, &to, force, &who))
            .await
    }

    async fn stat(&self, at: &At, path: &TreePath) -> Result<Option<Stat>> {
        let (at, path) = (at.clone(), path.clone());
        self.read(move |store| store.stat_at(&at, &path)).await
    }

    async fn list(&self, at: &At, path: &TreePath, sizes: bool) -> Result<Vec<Item>> {
        let (at, path) = (at.clone(), path.clone());
        let list = move |store: &Arc<Store>| {
            let mut items = Vec::new();
            store.list_at(&at, &path, sizes, &mut |item| {
                items.push(item);
                Ok(())
            })?;
            Ok(items)
        };
        // Without sizes it is one tree.
        match sizes {
            true => self.run(list).await,
            false => self.read(list).await,
        }
    }

    fn walk(&self, at: &At, path: &TreePath, sizes: bool) -> Records<Item> {
        let (at, path) = (at.clone(), path.clone());
        self.feed(move |store, feed: &mut Feed<walk::Run>| {
            let entry = store.entry_at(&at, &path)?;
            walk::walk(&store.objects, &entry, sizes, |path, entry, size| {
                feed.add(|run| run.push(path, entry, size))
            })
        })
    }

    async fn open(&self, at: &At, path: &TreePath) -> Result<Box<dyn Read + Send>> {
        let (at, path) = (at.clone(), path.clone());
        self.read(move |store| store.open_at(&at, &path)).await
    }

    async fn open_blob(&self, id: &ObjectId) -> Result<Box<dyn Read + Send>> {
        let id = *id;
        self.read(move |store| match store.engine.header(&id)? {
            Some((ObjectKind::Blob, _)) => store.objects.open(&id),
            _ => Err(store::Error::NotFound(format!("blob {id}"))),
        })
        .await
    }

    async fn open_blobs(&self, ids: &[ObjectId]) -> Result<Vec<Box<dyn Read + Send>>> {
        let ids = ids.to_vec();
        self.run(move |store| ids.iter().map(|id| store.objects.open(id)).collect())
            .await
    }

    async fn diff(&self, from: &At, to: &At, path: &TreePath) -> Result<Vec<Change>> {
        let (from, to, path) = (from.clone(), to.clone(), path.clone());
        self.run(move |store| {
            let mut changes = Vec::new();
            store.diff_at(&from, &to, &path, &mut |change| {
                changes.push(change);
                Ok(())
            })?;
            Ok(changes)
        })
        .await
    }

    fn log(&self, query: LogQuery) -> Records<Commit> {
        self.feed(move |store, feed| {
            for commit in history::Log::new(store.objects.clone(), query) {
                feed.push(commit?)?;
            }
            Ok(())
        })
    }

    async fn merge_bases(&self, a: &ObjectId, b: &ObjectId) -> Result<Vec<ObjectId>> {
        let (a, b) = (*a, *b);
        self.run(move |store| history::merge_bases(&store.objects, &a, &b))
            .await
    }

    async fn edit(
        &self,
        branch: &BranchName,
        edits: Edits,
        options: CommitOptions,
    ) -> Result<ObjectId> {
        let who = self.who(options.author.clone()).await?;
        let branch = branch.clone();
        self.run(move |store| store.edit(&branch, edits, &options, &who))
            .await
    }

    async fn merge(
        &self,
        branch: &BranchName,
        theirs: &ObjectId,
        options: MergeOptions,
    ) -> Result<Merged> {
        let who = self.who(options.commit.author.clone()).await?;
        let (branch, theirs) = (branch.clone(), *theirs);
        self.run(move |store| store.merge(&branch, &theirs, &options, &who))
            .await
    }

    async fn begin(
        &self,
        branch: &BranchName,
        from: Option<&ObjectId>,
        name: Option<&TransactionId>,
        author: Option<Signature>,
    ) -> Result<Transaction> {
        let who = self.who(author).await?;
        let (branch, from, name) = (branch.clone(), from.copied(), name.cloned());
        self.run(move |store| store.begin(&branch, from.as_ref(), name.as_ref(), &who))
            .await
    }

    async fn transactions(&self) -> Result<Vec<Transaction>> {
        self.run(|store| store.transactions()).await
    }

    async fn transaction(&self, prefix: &str) -> Result<Transaction> {
        let prefix = prefix.to_owned();
        self.read(move |store| store.transaction(&prefix)).await
    }

    async fn tx_edit(&self, tx: &TransactionId, edits: Edits) -> Result<Transaction> {
        let tx = tx.clone();
        self.run(move |store| store.tx_edit(&tx, edits, Time::now()))
            .await
    }

    async fn tx_merge(&self, tx: &TransactionId, theirs: &ObjectId) -> Result<Transaction> {
        let (tx, theirs, who) = (tx.clone(), *theirs, self.who(None).await?);
        self.run(move |store| store.tx_merge(&tx, &theirs, &who))
            .await
    }

    async fn tx_resolve(
        &self,
        tx: &TransactionId,
        paths: &[TreePath],
        side: Side,
    ) -> Result<Transaction> {
        let (tx, paths) = (tx.clone(), paths.to_vec());
        self.run(move |store| store.tx_resolve(&tx, &paths, side, Time::now()))
            .await
    }

    async fn tx_set(
        &self,
        tx: &TransactionId,
        message: Option<Vec<u8>>,
        parents: Option<Vec<ObjectId>>,
    ) -> Result<Transaction> {
        let tx = tx.clone();
        self.run(move |store| {
            store.tx_set(&tx, message.as_deref(), parents.as_deref(), Time::now())
        })
        .await
    }

    async fn tx_commit(&self, tx: &TransactionId, options: CommitOptions) -> Result<ObjectId> {
        let tx = tx.clone();
        self.run(move |store| {
            let now = options
                .author
                .as_ref()
                .map_or_else(Time::now, |who| who.time);
            store.tx_commit(&tx, &options, options.author.as_ref(), now)
        })
        .await
    }

    async fn tx_abort(&self, tx: &TransactionId) -> Result<()> {
        let (tx, who) = (tx.clone(), self.who(None).await?);
        self.run(move |store| store.tx_abort(&tx, &who)).await
    }

    async fn tx_collect(&self, older_than: Duration, dry_run: bool) -> Result<Vec<Transaction>> {
        let who = self.who(None).await?;
        self.run(move |store| store.tx_collect(older_than, dry_run, &who))
            .await
    }

    fn watch(&self, query: WatchQuery) -> Records<Event> {
        said(face::follow(&self.store, &self.looker, query))
    }

    async fn fetch(
        &self,
        remote: &str,
        refspecs: &[String],
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<Fetched>> {
        let who = self.who(None).await?;
        let (remote, refspecs) = (remote.to_owned(), refspecs.to_vec());
        self.run(move |store| store.fetch(&remote, &refspecs, &*progress, &who))
            .await
    }

    async fn push(
        &self,
        remote: &str,
        refspecs: &[String],
        progress: Arc<dyn Progress>,
    ) -> Result<()> {
        let (remote, refspecs) = (remote.to_owned(), refspecs.to_vec());
        self.run(move |store| store.repository()?.push(&remote, &refspecs, &*progress))
            .await
    }

    async fn remotes(&self) -> Result<Vec<RemoteInfo>> {
        self.run(|store| store.repository()?.remotes()).await
    }

    async fn add_remote(&self, name: &str, url: &str) -> Result<()> {
        let (name, url) = (name.to_owned(), url.to_owned());
        self.run(move |store| store.repository()?.add_remote(&name, &url))
            .await
    }

    async fn remove_remote(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.run(move |store| store.repository()?.remove_remote(&name))
            .await
    }

    async fn gc(&self, dry_run: bool, progress: Arc<dyn Progress>) -> Result<Collected> {
        let who = self.who(None).await?;
        self.run(move |store| store.gc(dry_run, &*progress, &who))
            .await
    }

    async fn fsck(&self, progress: Arc<dyn Progress>) -> Result<Vec<Fault>> {
        self.run(move |store| store.fsck(&*progress)).await
    }
}
