//! Transactions of one connection: `/branch/B/transactions`.
//!
//! Each is a tree that can be written, kept in memory, with what its commit is
//! to have. It ends by its `ctl`, or with its connection; who still has a file
//! of it open goes on with a tree that leads nowhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use futures_util::future::BoxFuture;

use crate::model::request::{CommitOptions, Edits};
use crate::model::{Kind, ObjectId, Time};
use crate::store::Store;
use crate::store::land::{Joined, Landed, Work};

use super::branch::Cell;
use super::control::{
    Ctl, Sides, conflicts, list, moved, read_ctl, read_parents, read_who, side, status,
};
use super::entry::{self, COUNTED, Dir, key};
use super::files::{Command, Computed, Fixed, Memory, Text, Turn, lock};
use super::import::Import;
use super::node::{Call, Create, Error, Node, Result, Shape};
use super::rw::{self, Space, Volatile};
use super::snapshots::{Diffs, parse_id};
use super::{Connection, Opened, World, failure};

/// The transactions of a branch that are open. Making one and looking one up
/// take turns, so that who asks right behind the making of one finds it.
#[derive(Default)]
pub struct Transactions {
    open: Mutex<BTreeMap<Vec<u8>, Arc<Transaction>>>,
    turn: Turn<()>,
}

/// `transactions`.
pub struct Folder {
    pub connection: Arc<Connection>,
    pub cell: Arc<Cell>,
}

#[async_trait::async_trait]
impl entry::Folder for Folder {
    fn writable(&self) -> bool {
        true
    }

    fn mtime(&self) -> i64 {
        self.connection.world.started
    }

    fn key_of(&self, name: &[u8]) -> Option<u64> {
        let open = lock(&self.cell.transactions.open);
        open.get(name).map(|transaction| transaction.key)
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        let open = lock(&self.cell.transactions.open);
        Ok(open.keys().map(|name| (name.clone(), Shape::Dir)).collect())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let _turn = self.cell.transactions.turn.take().await;
        let open = lock(&self.cell.transactions.open).get(name).cloned();
        match open {
            Some(transaction) => Ok(at.dir(name, Entries(transaction))),
            None => Err(failure::no_entry(format!(
                "transaction {}",
                crate::model::text::quote(name)
            ))),
        }
    }

    async fn create(
        &self,
        at: &Dir,
        call: &Call,
        name: &[u8],
        what: Create,
    ) -> Result<Arc<dyn Node>> {
        if what != Create::Dir {
            return Err(failure::only_directories());
        }
        let world = &self.connection.world;
        world.writable()?;
        if name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
            return Err(Error::new(Kind::Invalid, "this is not a name"));
        }
        let taken = || failure::exists(format!("transaction {}", crate::model::text::quote(name)));
        let _turn = self.cell.transactions.turn.take().await;
        if lock(&self.cell.transactions.open).contains_key(name) {
            return Err(taken());
        }
        let opened = self.connection.enter()?;
        let branch = self.cell.name();
        let start = move |store: &Arc<Store>| {
            let Some(head) = store.head(&branch)? else {
                let empty = store.objects.empty_tree();
                return Ok((None, empty, Time::now().seconds, store.identity()?));
            };
            let commit = store.objects.commit(&head)?;
            let since = commit.committer.time.seconds;
            Ok((Some(head), commit.tree, since, store.identity()?))
        };
        let (head, tree, since, identity) = world.run(start).await?;
        let key = key(world.count(), name) | COUNTED;
        let who = format!("{} <{}>\n", identity.name, identity.email).into_bytes();
        let line = |id: Option<ObjectId>| id.map_or_else(String::new, |id| format!("{id}\n"));
        let transaction = Arc::new(Transaction {
            world: world.clone(),
            cell: Arc::downgrade(&self.cell),
            name: name.to_vec(),
            key,
            owner: call.who.uname.clone(),
            begun: Time::now().seconds,
            space: Space::new(world, entry::key(key, b"rw"), tree, since, Volatile),
            message: Kept::new(Vec::new()),
            parents: Kept::new(line(head).into_bytes()),
            author: Kept::new(who.clone()),
            committer: Kept::new(who),
            base: Mutex::new(line(head).into_bytes()),
            state: Mutex::new(b"open\n".to_vec()),
            merged: Mutex::default(),
            commands: OnceLock::new(),
            _opened: opened,
        });
        // The branch is listed for as long as something is written to it.
        self.connection.branches.touch(&self.cell.name());
        lock(&self.cell.transactions.open).insert(name.to_vec(), transaction.clone());
        Ok(at.dir(name, Entries(transaction)))
    }
}

/// One transaction.
pub struct Transaction {
    world: Arc<World>,
    cell: Weak<Cell>,
    name: Vec<u8>,
    key: u64,
    owner: Vec<u8>,
    begun: i64,
    space: Arc<Space>,
    message: Kept,
    parents: Kept,
    author: Kept,
    committer: Kept,
    /// The commit it began with, as text.
    base: Mutex<Vec<u8>>,
    state: Mutex<Vec<u8>>,
    merged: Mutex<Option<Sides>>,
    commands: OnceLock<Commands>,
    _opened: Opened,
}

struct Commands {
    ctl: Arc<Command>,
    merge: Arc<Command>,
    import: Arc<Import>,
}

/// Text in memory, and the file that shows it.
struct Kept {
    text: Arc<Mutex<Vec<u8>>>,
    file: Arc<Memory>,
}

impl Kept {
    fn new(text: Vec<u8>) -> Self {
        let text = Arc::new(Mutex::new(text));
        let file = Arc::new(Memory::new(text.clone()));
        Self { text, file }
    }

    fn get(&self) -> Vec<u8> {
        lock(&self.text).clone()
    }

    fn set(&self, text: String) {
        *lock(&self.text) = text.into_bytes();
    }
}

impl Transaction {
    /// Gathers what is to land. `time` is when, where nobody said.
    fn work(&self) -> Result<Work> {
        let parents = read_parents(&self.world, &self.parents.get())?;
        let (tree, edits) = self.space.work();
        let now = Time::now();
        Ok(Work {
            tree,
            edits,
            parents,
            message: self.message.get(),
            author: read_who(&self.author.get(), now),
            committer: read_who(&self.committer.get(), now),
        })
    }

    async fn commit(self: &Arc<Self>, call: &Call, options: CommitOptions) -> Result<Vec<u8>> {
        let held = self.space.take().await?;
        let cell = self.cell.upgrade();
        let cell = cell.ok_or_else(|| failure::no_entry("the branch"))?;
        if lock(&cell.transactions.open)
            .get(&self.name)
            .is_none_or(|open| open.key != self.key)
        {
            return Err(Error::new(Kind::NotFound, "the transaction is over"));
        }
        let conflicts = held.space.conflicts();
        if !conflicts.is_empty() {
            return Err(failure::unresolved(&conflicts));
        }
        let (work, branch, call) = (self.work()?, cell.name(), call.clone());
        let land = move |store: &Arc<Store>| {
            let landed = store.land(&branch, work, &options, &|| call.pass());
            Ok((landed, branch))
        };
        let (landed, _) = self.world.run(land).await?;
        match landed.map_err(moved)? {
            Landed::Head(head) => {
                let text = format!("{head}\n").into_bytes();
                *lock(&self.state) = [b"committed ", &text[..]].concat();
                lock(&cell.transactions.open).remove(&self.name);
                Ok(text)
            }
            Landed::Conflict(joined) => {
                let conflicts = joined.conflicts.clone();
                self.joined(joined).await?;
                Err(failure::merge_conflict(&conflicts))
            }
        }
    }

    fn close(&self) -> Vec<u8> {
        if let Some(cell) = self.cell.upgrade() {
            let mut open = lock(&cell.transactions.open);
            if open
                .get(&self.name)
                .is_some_and(|open| open.key == self.key)
            {
                open.remove(&self.name);
            }
        }
        *lock(&self.state) = b"closed\n".to_vec();
        Vec::new()
    }

    async fn merge(self: &Arc<Self>, call: &Call, theirs: &[u8]) -> Result<Vec<u8>> {
        let held = self.space.take().await?;
        let theirs = parse_id(self.world.store.engine.hash_kind(), theirs)?;
        let conflicts = held.space.conflicts();
        if !conflicts.is_empty() {
            return Err(failure::unresolved(&conflicts));
        }
        let work = self.work()?;
        let join = move |store: &Arc<Store>| Ok(store.join(work, &theirs)?);
        let joined = self.world.change(call, join).await?;
        self.joined(joined).await?;
        Ok(b"ok".to_vec())
    }

    /// Takes in what a merge came to, in one's turn.
    async fn joined(&self, joined: Joined) -> Result<()> {
        let now = Time::now().seconds;
        self.space
            .rebase(joined.tree, now, joined.conflicts)
            .await?;
        let lines = joined.parents.iter().map(|id| format!("{id}\n"));
        self.parents.set(lines.collect::<String>());
        *lock(&self.merged) = Some(Sides {
            number: self.world.count(),
            merge: joined.sides,
        });
        Ok(())
    }

    fn commands(self: &Arc<Self>) -> &Commands {
        self.commands.get_or_init(|| Commands {
            ctl: Command::of(self, |transaction, call, text| {
                Box::pin(async move {
                    match read_ctl(&text)? {
                        Ctl::Close => Ok(transaction.close()),
                        Ctl::Commit(options) => transaction.commit(&call, options).await,
                    }
                })
            }),
            merge: Command::of(self, |transaction, call, text| {
                Box::pin(async move { transaction.merge(&call, &text).await })
            }),
            import: into(&self.world, &self.space),
        })
    }
}

/// The commit that a transaction began with: another may be named as long as
/// nothing was edited.
#[async_trait::async_trait]
impl Text for Transaction {
    async fn load(&self, _: &Call) -> Result<Vec<u8>> {
        Ok(lock(&self.base).clone())
    }

    async fn save(&self, _: &Call, text: Vec<u8>) -> Result<()> {
        let held = self.space.take().await?;
        if held.space.edits() > 0 || lock(&self.merged).is_some() {
            return Err(Error::new(
                Kind::Denied,
                "the transaction was edited already: its base stays",
            ));
        }
        let id = text.trim_ascii();
        if !id.is_empty() {
            let id = parse_id(self.world.store.engine.hash_kind(), id)?;
            let commit = move |store: &Arc<Store>| store.objects.commit(&id);
            let commit = self.world.run(commit).await?;
            let since = commit.committer.time.seconds;
            self.space.rebase(commit.tree, since, Vec::new()).await?;
            self.parents.set(format!("{id}\n"));
        }
        *lock(&self.base) = text;
        Ok(())
    }
}

/// `transactions/ID`.
struct Entries(Arc<Transaction>);

#[async_trait::async_trait]
impl entry::Folder for Entries {
    fn key(&self) -> Option<u64> {
        Some(self.0.key)
    }

    fn key_of(&self, name: &[u8]) -> Option<u64> {
        let merged = lock(&self.0.merged);
        merged.as_ref()?.key(self.0.key, name)
    }

    fn mtime(&self) -> i64 {
        self.0.begun
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(list(false, lock(&self.0.merged).is_some()))
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let transaction = &self.0;
        let merged = lock(&transaction.merged).clone();
        if let Some(sides) = &merged {
            match name {
                b"ours" | b"theirs" | b"base" => {
                    return side(&transaction.world, at, name, sides).await;
                }
                b"conflicts" => {
                    let space = transaction.space.clone();
                    return Ok(at.file(name, conflicts(space)));
                }
                _ => {}
            }
        }
        let owned = |text: &[u8]| Fixed::new([text, b"\n"].concat());
        Ok(match name {
            b"author" => at.shared_file(name, transaction.author.file.clone()),
            b"base" => at.file(name, Memory::new(transaction.clone())),
            b"branch" => {
                let branch = transaction.cell.upgrade().map(|cell| cell.name());
                let branch = branch.ok_or_else(|| failure::no_entry("the branch"))?;
                at.file(name, owned(branch.as_bytes()))
            }
            b"committer" => at.shared_file(name, transaction.committer.file.clone()),
            b"ctl" => at.shared_file(name, transaction.commands().ctl.clone()),
            b"diff" => {
                let space = transaction.space.clone();
                let now = move |store: &Store| {
                    let (tree, edits) = space.work();
                    store.edited_tree(&tree, edits)
                };
                at.dir(name, Diffs::new(&transaction.world, Arc::new(now)))
            }
            b"import" => at.shared_file(name, transaction.commands().import.clone()),
            b"import.status" => at.file(name, status(&transaction.commands().import)),
            b"merge" => at.shared_file(name, transaction.commands().merge.clone()),
            b"msg" => at.shared_file(name, transaction.message.file.clone()),
            b"origin" => at.file(name, Fixed::new(Vec::new())),
            b"owner" => at.file(name, owned(&transaction.owner)),
            b"parents" => at.shared_file(name, transaction.parents.file.clone()),
            b"rw" => rw::root(&transaction.space, Arc::new(at.clone())),
            b"state" => {
                let transaction = transaction.clone();
                let state = move |_: &Call| -> BoxFuture<'static, Result<Vec<u8>>> {
                    let state = lock(&transaction.state).clone();
                    Box::pin(async move { Ok(state) })
                };
                at.file(name, Computed::new(state))
            }
            _ => return Err(failure::no_name(name)),
        })
    }
}

/// `import` of a space: what comes is put into a tree in the store, which the
/// space then has below it.
fn into(world: &Arc<World>, space: &Arc<Space>) -> Arc<Import> {
    let space = space.clone();
    Import::new(world, move |call, more, paths| -> BoxFuture<'static, _> {
        let (space, call) = (space.clone(), call.clone());
        Box::pin(async move {
            let held = space.take().await?;
            let (tree, edits) = held.space.work();
            let both = Edits::new(move |sink| {
                edits.give(sink)?;
                more.give(sink)
            });
            let edit = move |store: &Arc<Store>| Ok(store.edited_tree(&tree, both)?);
            let tree = space.world.change(&call, edit).await?;
            let mut conflicts = space.conflicts();
            let written = lock(&paths).clone();
            conflicts.retain(|conflict| !written.contains(&conflict.path));
            space.rebase(tree, Time::now().seconds, conflicts).await?;
            space.touch();
            Ok(())
        })
    })
}
