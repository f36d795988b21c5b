//! The contract, answered by a server over 9P.
//!
//! Every method has a file in the server's tree (dk-tree(5)); the text forms
//! are those of `model/text`.
//!
//! When a connection is lost another is made, with growing pauses between the
//! attempts. What only reads is asked again. A watch goes on after the last
//! event it gave. A change whose answer was lost is asked about, or asked for
//! again where that cannot do it twice; where nobody knows, the error says so
//! and how to find out. What had not been sent to its last line did not happen.

use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;

use crate::client::*;
use crate::model::Entry;
use crate::model::text::{
    CollectTransactions, DiffQuery, LogElement, LsQuery, LsShape, Rename, Reset, ResolveQuery,
    percent_encode, take_change, take_commit_record, take_item, take_transaction,
};
use crate::ninep::client::{self as ninep, Endpoint, flags};

mod ask;
mod change;
mod failure;
mod link;
mod read;
mod task;
mod watch;

use failure::Context;
use link::{Core, Session};

/// How a server is talked to.
#[derive(Clone, Debug)]
pub struct Options {
    /// The connection: sizes, and how long silence is borne.
    pub connection: ninep::Options,
    /// Who commits when nobody is named; nobody: whoever the server says.
    pub identity: Option<Identity>,
    /// For how long a lost connection is tried to be replaced before a call
    /// fails. A watch tries for ever.
    pub retry: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connection: ninep::Options::default(),
            identity: None,
            retry: Duration::from_secs(15),
        }
    }
}

/// How many bytes an answer may have that is held whole in memory.
const WHOLE: usize = 1 << 30;
/// How often one read is asked for again.
const TRIES: usize = 10;
/// How many files are asked for together.
const TOGETHER: usize = 64;

/// A store behind a server.
pub struct Remote {
    core: Arc<Core>,
    identity: Option<Identity>,
}

impl Remote {
    /// Connects to `tcp://HOST[:PORT]` or `unix:///PATH`.
    pub async fn connect(url: &str, options: Options) -> Result<Self> {
        let endpoint: Endpoint = match url.parse() {
            Ok(endpoint) => endpoint,
            Err(refused) => return Err(Error::new(Kind::Invalid, format!("{refused}"))),
        };
        let dial = move || {
            let endpoint = endpoint.clone();
            async move {
                ninep::connect(&endpoint)
                    .await
                    .map_err(failure::unreachable)
            }
        };
        Self::over(url.to_owned(), dial, options).await
    }

    /// Speaks to a server over whatever `dial` gives, each time a connection is
    /// needed. `url` is what the store is called.
    pub async fn over<S, D, F>(url: String, dial: D, options: Options) -> Result<Self>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
        D: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<S>> + Send + 'static,
    {
        let connection = options.connection.clone();
        let (dial, name) = (Arc::new(dial), url.clone());
        let begin = move || {
            let (dial, name, connection) = (dial.clone(), name.clone(), connection.clone());
            Box::pin(async move {
                let stream = dial().await?;
                let begun = ninep::Connection::with(stream, &connection, Session::begin).await;
                begun.map_err(|error| failure::no_session(&name, &error))
            }) as link::Dialing
        };
        let core = Core::new(url, options.retry, Box::new(begin));
        core.first().await?;
        Ok(Self {
            core,
            identity: options.identity,
        })
    }
}

/// Returns the element of `tx` that names a transaction, and none whose name
/// only begins like that.
fn exactly(tx: &TransactionId) -> Vec<u8> {
    format!("{tx}=").into_bytes()
}

/// Returns the id in a line.
fn one_id(text: &[u8]) -> Result<ObjectId> {
    let id = ObjectId::from_hex(text.trim_ascii_end());
    id.ok_or_else(|| failure::nonsense("an id"))
}

fn all<T>(
    text: &[u8],
    take: fn(&mut &[u8]) -> crate::model::text::Taken<T>,
    what: &'static str,
) -> Result<Vec<T>> {
    let (mut rest, mut found) = (text, Vec::new());
    while !rest.is_empty() {
        match take(&mut rest) {
            Ok(Some(record)) => found.push(record),
            _ => return Err(failure::nonsense(what)),
        }
    }
    Ok(found)
}

#[async_trait::async_trait]
impl Client for Remote {
    async fn info(&self) -> Result<StoreInfo> {
        let session = self.core.session().await?;
        let told = session.told.as_ref();
        Ok(StoreInfo {
            url: self.core.url.clone(),
            id: told.and_then(|told| told.id.clone()),
            id_digits: told.map_or(40, |told| told.hash.id_len() * 2),
            read_only: told.is_some_and(|told| told.read_only),
        })
    }

    async fn identity(&self) -> Result<Identity> {
        if let Some(identity) = &self.identity {
            return Ok(identity.clone());
        }
        let session = self.core.session().await?;
        let told = session.told.as_ref();
        Ok(told.map_or_else(Identity::default, |told| told.identity.clone()))
    }

    async fn resolve(&self, rev: &Rev) -> Result<ObjectId> {
        let element = ResolveQuery::Rev(rev.clone()).write();
        one_id(&self.resolved(element).await?)
    }

    async fn commit(&self, id: &ObjectId) -> Result<Commit> {
        let query = LogQuery {
            limit: Some(1),
            ..LogQuery::default()
        };
        let start = Rev::from(*id);
        let element = LogElement { start, query }.write();
        let commit = self.first("log", element, take_commit_record).await;
        let commit = commit.map_err(|error| failure::of_commits(error, &[*id]))?;
        let commit = commit.ok_or_else(|| failure::nonsense("a commit"))?;
        match commit.id == *id {
            true => Ok(commit),
            // A tag was peeled: it is no commit itself.
            false => Err(Error::NotFound {
                what: format!("commit {id}"),
            }),
        }
    }

    async fn branches(&self) -> Result<Vec<Branch>> {
        Ok(self.refs().await?.branches)
    }

    async fn fetched_branches(&self) -> Result<Vec<Branch>> {
        Ok(self.refs().await?.fetched)
    }

    async fn head(&self, branch: &BranchName) -> Result<Option<ObjectId>> {
        let name = Arc::new(Self::element(branch));
        let what = Context::file("branch", &name);
        let text = self.ask(what, move |session| {
            let name = name.clone();
            async move {
                let file = session.open("branch", &[&name, b"head"], 0).await?;
                file.whole(0, WHOLE).await
            }
        });
        match text.await {
            Ok(text) if text.trim_ascii().is_empty() => Ok(None),
            Ok(text) => one_id(&text).map(Some),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn move_head(
        &self,
        branch: &BranchName,
        to: &ObjectId,
        options: MoveOptions,
    ) -> Result<()> {
        let to = Some(*to);
        let moved = self.reset(branch, Reset { to, options }, true).await;
        match moved {
            // Where it is there now, it was moved, by whomever.
            Err(error) if failure::is_unknown(&error) => match self.head(branch).await {
                Ok(head) if head == to => Ok(()),
                _ => Err(error),
            },
            result => result.map(|_| ()),
        }
    }

    async fn delete_branch(&self, branch: &BranchName, options: MoveOptions) -> Result<ObjectId> {
        let to = None;
        one_id(&self.reset(branch, Reset { to, options }, false).await?)
    }

    async fn rename_branch(
        &self,
        from: &BranchName,
        to: &BranchName,
        force: bool,
    ) -> Result<ObjectId> {
        let name = Self::element(from);
        let rename = Rename {
            to: to.as_bytes().to_vec(),
            force,
        };
        let what = Context::change(format!("{from} was renamed to {to}"), "dk branch list -v");
        let text = self.once(what, |session| async move {
            session
                .command("branch", &name, false, "rename", rename.write())
                .await
        });
        one_id(&text.await?)
    }

    async fn stat(&self, at: &At, path: &TreePath) -> Result<Option<Stat>> {
        self.entry(at, path).await
    }

    async fn list(&self, at: &At, path: &TreePath, sizes: bool) -> Result<Vec<Item>> {
        let query = LsQuery {
            at: at.clone(),
            path: path.clone(),
            shape: LsShape::Entries,
            sizes,
        };
        all(&self.query("ls", query.write()).await?, take_item, "ls")
    }

    fn walk(&self, at: &At, path: &TreePath, sizes: bool) -> Records<Item> {
        let query = LsQuery {
            at: at.clone(),
            path: path.clone(),
            shape: LsShape::Leaves,
            sizes,
        };
        let fixed = !matches!(at, At::Transaction(_));
        read::records(self.core.clone(), "ls", query.write(), take_item, fixed)
    }

    async fn open(&self, at: &At, path: &TreePath) -> Result<Box<dyn Read + Send>> {
        let Some(Stat { entry, size }) = self.entry(at, path).await? else {
            return Err(Error::NotFound {
                what: path.to_string(),
            });
        };
        let Entry { mode, id } = entry;
        if mode.is_dir() {
            let message = format!("{path} is a directory");
            return Err(Error::new(Kind::IsDirectory, message));
        }
        if !mode.is_blob() {
            let what = mode.kind().name();
            let message = format!("{path} is a {what}: its content is not in this store");
            return Err(Error::new(Kind::Unsupported, message));
        }
        read::open(&self.core, id, Some(size)).await
    }

    async fn open_blob(&self, id: &ObjectId) -> Result<Box<dyn Read + Send>> {
        read::open(&self.core, *id, None).await
    }

    async fn open_blobs(&self, ids: &[ObjectId]) -> Result<Vec<Box<dyn Read + Send>>> {
        let mut readers = Vec::with_capacity(ids.len());
        for ids in ids.chunks(TOGETHER) {
            let opening = ids.iter().map(|id| read::open(&self.core, *id, None));
            readers.extend(futures_util::future::try_join_all(opening).await?);
        }
        Ok(readers)
    }

    async fn diff(&self, from: &At, to: &At, path: &TreePath) -> Result<Vec<Change>> {
        let query = DiffQuery {
            from: from.clone(),
            to: to.clone(),
            path: path.clone(),
        };
        let text = self.query("diff", query.write()).await?;
        all(&text, take_change, "diff")
    }

    fn log(&self, mut query: LogQuery) -> Records<Commit> {
        if query.from.is_empty() || query.limit == Some(0) {
            return Box::pin(futures_util::stream::empty());
        }
        let id = query.from.remove(0);
        let start = Rev::from(id);
        let element = LogElement { start, query }.write();
        let commits = read::records(self.core.clone(), "log", element, take_commit_record, true);
        Box::pin(commits.map_err(move |error| failure::of_commits(error, &[id])))
    }

    async fn merge_bases(&self, a: &ObjectId, b: &ObjectId) -> Result<Vec<ObjectId>> {
        let element = ResolveQuery::Bases((*a).into(), (*b).into()).write();
        let text = self.resolved(element).await;
        let text = text.map_err(|error| failure::of_commits(error, &[*a, *b]))?;
        let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(one_id).collect()
    }

    async fn edit(
        &self,
        branch: &BranchName,
        edits: Edits,
        options: CommitOptions,
    ) -> Result<ObjectId> {
        self.commit_edits(branch, edits, options).await
    }

    async fn merge(
        &self,
        branch: &BranchName,
        theirs: &ObjectId,
        options: MergeOptions,
    ) -> Result<Merged> {
        self.merge_branch(branch, *theirs, options).await
    }

    async fn begin(
        &self,
        branch: &BranchName,
        from: Option<&ObjectId>,
        name: Option<&TransactionId>,
        author: Option<Signature>,
    ) -> Result<Transaction> {
        self.begin_transaction(branch, from.copied(), name.cloned(), author)
            .await
    }

    async fn transactions(&self) -> Result<Vec<Transaction>> {
        let names = self
            .ask("tx", |session| async move {
                let file = session.open_root(&[b"tx"], flags::DIRECTORY).await?;
                file.names().await
            })
            .await?;
        let mut found = Vec::with_capacity(names.len());
        for names in names.chunks(TOGETHER) {
            let exact: Vec<Vec<u8>> = names
                .iter()
                .map(|name| [name, &b"="[..]].concat())
                .collect();
            let reading = exact.iter().map(|name| self.meta(name));
            for transaction in futures_util::future::join_all(reading).await {
                match transaction {
                    Ok(transaction) => found.push(transaction),
                    // It ended in the meantime.
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        found.sort_by(|a, b| (a.begun.seconds, &a.id).cmp(&(b.begun.seconds, &b.id)));
        Ok(found)
    }

    async fn transaction(&self, prefix: &str) -> Result<Transaction> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if prefix.is_empty() || prefix.starts_with('.') || !prefix.chars().all(legal) {
            return Err(Error::NotFound {
                what: format!("transaction {prefix:?}"),
            });
        }
        self.meta(prefix.as_bytes()).await
    }

    async fn tx_edit(&self, tx: &TransactionId, edits: Edits) -> Result<Transaction> {
        self.edit_transaction(tx, edits).await
    }

    async fn tx_merge(&self, tx: &TransactionId, theirs: &ObjectId) -> Result<Transaction> {
        let (name, text) = (exactly(tx), theirs.to_string());
        let what = Context::change(
            format!("{theirs} was merged into transaction {tx}"),
            failure::status(tx),
        );
        self.once(what, |session| async move {
            session
                .command("tx", &name, false, "merge", text.into())
                .await
        })
        .await?;
        self.meta(&exactly(tx)).await
    }

    async fn tx_resolve(
        &self,
        tx: &TransactionId,
        paths: &[TreePath],
        side: Side,
    ) -> Result<Transaction> {
        self.resolve_conflicts(tx, paths, side).await
    }

    async fn tx_set(
        &self,
        tx: &TransactionId,
        message: Option<Vec<u8>>,
        parents: Option<Vec<ObjectId>>,
    ) -> Result<Transaction> {
        self.set_transaction(tx, message, parents).await
    }

    async fn tx_commit(&self, tx: &TransactionId, options: CommitOptions) -> Result<ObjectId> {
        self.commit_transaction(tx, options).await
    }

    async fn tx_abort(&self, tx: &TransactionId) -> Result<()> {
        let name = exactly(tx);
        let what = Context::change(format!("transaction {tx} was aborted"), failure::status(tx));
        let aborted = self.once(what, |session| async move {
            session
                .command("tx", &name, false, "ctl", b"close".to_vec())
                .await
        });
        match aborted.await {
            // Where it is gone now, it was aborted, by whomever.
            Err(error) if failure::is_unknown(&error) => match self.meta(&exactly(tx)).await {
                Err(gone) if gone.kind() == Kind::NotFound => Ok(()),
                _ => Err(error),
            },
            result => result.map(|_| ()),
        }
    }

    async fn tx_collect(&self, older_than: Duration, dry_run: bool) -> Result<Vec<Transaction>> {
        let collect = CollectTransactions {
            older_than,
            dry_run,
        };
        let what = Context::change("transactions were dropped".into(), "dk tx open");
        let text = self.once(what, |session| async move {
            session
                .write_and_read("maintenance", &[b"tx"], collect.write().into())
                .await
        });
        all(&text.await?, take_transaction, "a transaction")
    }

    fn watch(&self, query: WatchQuery) -> Records<Event> {
        watch::follow(self.core.clone(), query)
    }

    async fn fetch(
        &self,
        remote: &str,
        refspecs: &[String],
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<Fetched>> {
        task::fetch(&self.core, remote, refspecs, &*progress).await
    }

    async fn push(
        &self,
        remote: &str,
        refspecs: &[String],
        progress: Arc<dyn Progress>,
    ) -> Result<()> {
        task::push(&self.core, remote, refspecs, &*progress).await
    }

    async fn remotes(&self) -> Result<Vec<RemoteInfo>> {
        task::remotes(&self.core).await
    }

    async fn add_remote(&self, name: &str, url: &str) -> Result<()> {
        task::add_remote(&self.core, name, url).await
    }

    async fn remove_remote(&self, name: &str) -> Result<()> {
        let element = percent_encode(name.as_bytes(), b"");
        let what = Context::change(format!("remote {name} was removed"), "dk remote list");
        self.once(what, |session| async move {
            let dir = session.dir("remotes")?;
            session.connection.rmdir(dir, &element).await
        })
        .await
    }

    async fn gc(&self, dry_run: bool, progress: Arc<dyn Progress>) -> Result<Collected> {
        task::gc(&self.core, dry_run, &*progress).await
    }

    async fn fsck(&self, progress: Arc<dyn Progress>) -> Result<Vec<Fault>> {
        task::fsck(&self.core, &*progress).await
    }
}
