//! Durable transactions: `/tx`, and `tx` of each branch.
//!
//! They are shared by all connections, and by programs that use the store
//! themselves. What is edited through the tree is kept here until it is made
//! durable: when a file is closed or synced, and at every write to `ctl`. Then
//! the edits are applied to the transaction as it is by then, so that edits of
//! different files all stand.

mod line;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use futures_util::future::BoxFuture;

use crate::model::{BranchName, ObjectId, State, Time, Transaction, TransactionId};
use crate::store::engine::HeadName;
use crate::store::{self, Store};

use super::branch::Cell;
use super::control::{Ctl, Sides, conflicts, list, moved, read_ctl, read_parents, side, status};
use super::entry::{self, COUNTED, Dir, key};
use super::files::{Command, Computed, Fixed, Memory, lock};
use super::import::Import;
use super::node::{Call, Create, Error, Node, Result, Shape};
use super::rw::{self, Keeper, Space};
use super::snapshots::{Diffs, parse_id};
use super::{Connection, World, calls, failure, who};
use line::{Line, What, author_line};

/// The transactions in somebody's hands.
#[derive(Default)]
pub struct Held(Mutex<HashMap<TransactionId, Weak<Durable>>>);

impl Held {
    pub fn len(&self) -> usize {
        let held = lock(&self.0);
        held.values().filter(|one| one.strong_count() > 0).count()
    }
}

/// One durable transaction, as this server has it.
pub struct Durable {
    world: Arc<World>,
    id: TransactionId,
    key: u64,
    space: Arc<Space>,
    /// What it was when it was last read.
    known: Arc<Mutex<Known>>,
    /// Written and not yet durable.
    message: Mutex<Option<Vec<u8>>>,
    parents: Mutex<Option<Vec<u8>>>,
    files: OnceLock<Files>,
}

struct Known {
    /// What its ref held.
    at: ObjectId,
    transaction: Transaction,
}

struct Files {
    ctl: Arc<Command>,
    merge: Arc<Command>,
    import: Arc<Import>,
    texts: Vec<(&'static [u8], Arc<Memory>)>,
}

/// Keeps a space in step with the transaction in the store.
struct Shared {
    id: TransactionId,
    known: Arc<Mutex<Known>>,
}

impl Shared {
    /// Takes in what the transaction is now.
    async fn load(&self, space: &Space) -> Result<()> {
        let id = self.id.clone();
        let load = move |store: &Arc<Store>| store.transaction_with_ref(&id);
        let (at, transaction) = space.world.run(load).await?;
        let since = transaction.edited.seconds;
        let conflicts = transaction.conflicts.clone();
        space.rebase(transaction.tree, since, conflicts).await?;
        *lock(&self.known) = Known { at, transaction };
        Ok(())
    }
}

#[async_trait::async_trait]
impl Keeper for Shared {
    async fn refresh(&self, space: &Space) -> Result<()> {
        let name = HeadName::transaction(&self.id);
        let at = match space.world.store.engine.quick_head(&name) {
            Some(Some(at)) => at,
            _ => {
                let id = self.id.clone();
                let at = move |store: &Arc<Store>| match store.transaction_ref(&id)? {
                    Some(at) => Ok(at),
                    None => Err(store::Error::NotFound(format!("transaction {id}"))),
                };
                space.world.run(at).await?
            }
        };
        // What was edited here is applied to what it is by then.
        if at == lock(&self.known).at || space.edits() > 0 {
            return Ok(());
        }
        self.load(space).await
    }

    async fn sync(&self, space: &Space, call: &Call) -> Result<()> {
        if space.edits() == 0 {
            return Ok(());
        }
        let (id, (_, edits)) = (self.id.clone(), space.work());
        let edit = move |store: &Arc<Store>| Ok(store.tx_edit(&id, edits, Time::now())?);
        space.world.change(call, edit).await?;
        self.load(space).await
    }

    fn is_shared(&self) -> bool {
        true
    }
}

impl World {
    /// Returns a durable transaction by its name or an unambiguous prefix; with
    /// `=` behind it by exactly that name.
    async fn durable(self: &Arc<Self>, prefix: &[u8]) -> Result<Arc<Durable>> {
        let missing = || {
            let shown = crate::model::text::quote(prefix);
            failure::no_entry(format!("transaction {shown}"))
        };
        let prefix = std::str::from_utf8(prefix).map_err(|_| missing())?;
        let name = TransactionId::new(prefix.strip_suffix('=').unwrap_or(prefix));
        let known = name.and_then(|id| self.store.quick_transaction(&id));
        let (at, transaction) = match known {
            Some(known) => known,
            None => {
                let prefix = prefix.to_owned();
                self.run(move |store| find(store, &prefix)).await?
            }
        };
        let mut held = lock(&self.durable.0);
        if let Some(known) = held.get(&transaction.id).and_then(Weak::upgrade) {
            return Ok(known);
        }
        held.retain(|_, one| one.strong_count() > 0);
        let id = transaction.id.clone();
        let key = key(0, id.as_str().as_bytes()) | COUNTED;
        let (tree, since) = (transaction.tree, transaction.edited.seconds);
        let conflicts = transaction.conflicts.clone();
        let known = Arc::new(Mutex::new(Known { at, transaction }));
        let keeper = Shared {
            id: id.clone(),
            known: known.clone(),
        };
        let space = Space::new(self, entry::key(key, b"rw"), tree, since, keeper);
        space.begin_with(conflicts);
        let durable = Arc::new(Durable {
            world: self.clone(),
            id: id.clone(),
            key,
            space,
            known,
            message: Mutex::default(),
            parents: Mutex::default(),
            files: OnceLock::new(),
        });
        held.insert(id, Arc::downgrade(&durable));
        Ok(durable)
    }
}

/// Finds one by its name or a prefix, in the store. Blocks.
fn find(store: &Store, prefix: &str) -> store::Result<(ObjectId, Transaction)> {
    let id = match prefix.strip_suffix('=') {
        None => store.transaction(prefix)?.id,
        Some(name) => {
            let missing = || store::Error::NotFound(format!("transaction {name}"));
            TransactionId::new(name).ok_or_else(missing)?
        }
    };
    store.transaction_with_ref(&id)
}

impl Durable {
    /// Returns what it is now.
    async fn now(&self) -> Result<Transaction> {
        drop(self.space.take().await?);
        Ok(lock(&self.known).transaction.clone())
    }

    /// Makes what was edited durable.
    async fn sync(&self, call: &Call) -> Result<()> {
        self.space.sync(call).await?;
        let (message, parents) = (lock(&self.message).clone(), lock(&self.parents).clone());
        if message.is_none() && parents.is_none() {
            return Ok(());
        }
        let ids = match &parents {
            Some(text) => Some(read_parents(&self.world, text)?),
            None => None,
        };
        let (id, text) = (self.id.clone(), message.clone());
        let set = move |store: &Arc<Store>| {
            Ok(store.tx_set(&id, text.as_deref(), ids.as_deref(), Time::now())?)
        };
        self.world.change(call, set).await?;
        // What was written meanwhile waits for the next time.
        let taken = |slot: &Mutex<Option<Vec<u8>>>, text: &Option<Vec<u8>>| {
            let mut slot = lock(slot);
            if *slot == *text {
                *slot = None;
            }
        };
        taken(&self.message, &message);
        taken(&self.parents, &parents);
        Ok(())
    }

    async fn control(&self, call: &Call, text: &[u8]) -> Result<Vec<u8>> {
        let ctl = read_ctl(text)?;
        let id = self.id.clone();
        let options = match ctl {
            Ctl::Close => {
                let abort = move |store: &Arc<Store>| Ok(store.tx_abort(&id, &who(store)?)?);
                self.world.change(call, abort).await?;
                return Ok(Vec::new());
            }
            Ctl::Commit(options) => options,
        };
        self.sync(call).await?;
        let before = self.now().await?;
        if !before.conflicts.is_empty() && before.state == State::Open {
            return Err(failure::unresolved(&before.conflicts));
        }
        let commit =
            move |store: &Arc<Store>| match store.tx_commit(&id, &options, None, Time::now()) {
                Ok(head) => Ok(format!("{head}\n").into_bytes()),
                Err(store::Error::Conflict(conflicts)) => Err(failure::merge_conflict(&conflicts)),
                Err(error) => Err(moved(error)),
            };
        self.world.change(call, commit).await
    }

    async fn merge(&self, call: &Call, theirs: &[u8]) -> Result<Vec<u8>> {
        let theirs = parse_id(self.world.store.engine.hash_kind(), theirs)?;
        self.sync(call).await?;
        let id = self.id.clone();
        let merge = move |store: &Arc<Store>| match store.tx_merge(&id, &theirs, &who(store)?) {
            Ok(_) => Ok(b"ok".to_vec()),
            Err(store::Error::Conflict(conflicts)) => Err(failure::unresolved(&conflicts)),
            Err(error) => Err(error.into()),
        };
        self.world.change(call, merge).await
    }

    fn files(self: &Arc<Self>) -> &Files {
        self.files.get_or_init(|| {
            let text = |name: &'static [u8], what: What| {
                let durable = Arc::downgrade(self);
                (
                    name,
                    Arc::new(Memory::new(Arc::new(Line { durable, what }))),
                )
            };
            Files {
                ctl: Command::of(self, |durable, call, text| {
                    Box::pin(async move { durable.control(&call, &text).await })
                }),
                merge: Command::of(self, |durable, call, text| {
                    Box::pin(async move { durable.merge(&call, &text).await })
                }),
                import: self.import(),
                texts: vec![
                    text(b"msg", What::Message),
                    text(b"parents", What::Parents),
                    text(b"author", What::Author),
                    text(b"base", What::Base),
                ],
            }
        })
    }

    fn import(self: &Arc<Self>) -> Arc<Import> {
        let durable = Arc::downgrade(self);
        Import::new(
            &self.world,
            move |call, edits, _| -> BoxFuture<'static, Result<()>> {
                let (durable, call) = (durable.upgrade(), call.clone());
                Box::pin(async move {
                    let durable = durable.ok_or_else(|| failure::no_entry("the transaction"))?;
                    durable.sync(&call).await?;
                    let id = durable.id.clone();
                    let edit = move |store: &Arc<Store>| {
                        store.tx_edit(&id, edits, Time::now())?;
                        Ok(())
                    };
                    durable.world.change(&call, edit).await
                })
            },
        )
    }

    /// Makes a file that tells something of what it is now.
    fn tells(
        self: &Arc<Self>,
        tell: impl Fn(&Transaction) -> Vec<u8> + Clone + Send + Sync + 'static,
    ) -> Computed {
        let durable = self.clone();
        Computed::new(move |_: &Call| -> BoxFuture<'static, Result<Vec<u8>>> {
            let (durable, tell) = (durable.clone(), tell.clone());
            Box::pin(async move { Ok(tell(&durable.now().await?)) })
        })
    }
}

/// `/tx`, or `tx` of a branch.
pub struct All {
    pub connection: Arc<Connection>,
    /// Nothing: those of all branches.
    pub cell: Option<Arc<Cell>>,
}

impl All {
    fn world(&self) -> &Arc<World> {
        &self.connection.world
    }

    fn branch(&self) -> Option<BranchName> {
        self.cell.as_ref().map(|cell| cell.name())
    }

    async fn find(&self, at: &Dir, name: &[u8]) -> Result<Arc<dyn Node>> {
        let durable = self.world().durable(name).await?;
        if let Some(branch) = self.branch()
            && lock(&durable.known).transaction.branch != branch
        {
            return Err(failure::no_name(name));
        }
        Ok(at.dir(
            durable.id.as_str().as_bytes(),
            Entries(durable.clone(), self.connection.clone()),
        ))
    }
}

#[async_trait::async_trait]
impl entry::Folder for All {
    fn writable(&self) -> bool {
        self.cell.is_some()
    }

    fn mtime(&self) -> i64 {
        self.world().started
    }

    fn key_of(&self, name: &[u8]) -> Option<u64> {
        Some(key(0, name) | COUNTED)
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        let branch = self.branch();
        let ids = move |store: &Arc<Store>| match branch {
            None => store.transaction_ids(),
            Some(branch) => {
                let all = store.transactions()?.into_iter();
                Ok(all
                    .filter(|tx| tx.branch == branch)
                    .map(|tx| tx.id)
                    .collect())
            }
        };
        let ids = self.world().run(ids).await?;
        let entry = |id: TransactionId| (id.as_str().into(), Shape::Dir);
        Ok(ids.into_iter().map(entry).collect())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        // Who asks right behind the making of one finds it.
        let _turn = self.connection.turn.take().await;
        self.find(at, name).await
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
        let Some(branch) = self.branch() else {
            return Err(failure::read_only_dir());
        };
        let id = std::str::from_utf8(name).ok().and_then(TransactionId::new);
        let id = id.ok_or_else(|| {
            let shown = crate::model::text::quote(name);
            let message = format!("{shown} is not a legal name for a transaction");
            Error::new(crate::model::Kind::Invalid, message)
        })?;
        let begin =
            move |store: &Arc<Store>| Ok(store.begin(&branch, None, Some(&id), &who(store)?)?);
        let _turn = self.connection.turn.take().await;
        self.world().change(call, begin).await?;
        self.find(at, name).await
    }
}

/// `tx/ID`, for one connection.
struct Entries(Arc<Durable>, Arc<Connection>);

impl Entries {
    /// What its last merge was about, if there was one.
    fn sides(transaction: &Transaction) -> Option<Sides> {
        let merge = transaction.merge.clone()?;
        let number = key(key(0, merge.ours.as_bytes()), merge.theirs.as_bytes());
        Some(Sides { number, merge })
    }
}

#[async_trait::async_trait]
impl entry::Folder for Entries {
    fn key(&self) -> Option<u64> {
        Some(self.0.key)
    }

    fn key_of(&self, name: &[u8]) -> Option<u64> {
        let known = lock(&self.0.known);
        Self::sides(&known.transaction)?.key(self.0.key, name)
    }

    fn mtime(&self) -> i64 {
        lock(&self.0.known).transaction.edited.seconds
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        let now = self.0.now().await?;
        Ok(list(true, now.merge.is_some()))
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let durable = &self.0;
        if !matches!(name, b"apply" | b"meta" | b"state") {
            self.1.recent.keep(durable);
        }
        if let b"ours" | b"theirs" | b"base" | b"conflicts" = name {
            let now = durable.now().await?;
            if let Some(sides) = Self::sides(&now) {
                if name == b"conflicts" {
                    return Ok(at.file(name, conflicts(durable.space.clone())));
                }
                return side(&durable.world, at, name, &sides).await;
            }
        }
        let files = durable.files();
        if let Some((_, text)) = files.texts.iter().find(|(known, _)| *known == name) {
            return Ok(at.shared_file(name, text.clone()));
        }
        Ok(match name {
            b"apply" => at.file(name, calls::of_transaction(&durable.world, &durable.id)),
            b"branch" => {
                let branch = lock(&durable.known).transaction.branch.clone();
                at.file(name, Fixed::new([branch.as_bytes(), b"\n"].concat()))
            }
            b"committer" | b"owner" => at.file(name, durable.tells(author_line)),
            b"ctl" => at.shared_file(name, files.ctl.clone()),
            b"diff" => {
                let space = durable.space.clone();
                let now = move |store: &Store| {
                    let (tree, edits) = space.work();
                    store.edited_tree(&tree, edits)
                };
                at.dir(name, Diffs::new(&durable.world, Arc::new(now)))
            }
            b"import" => at.shared_file(name, files.import.clone()),
            b"import.status" => at.file(name, status(&files.import)),
            b"merge" => at.shared_file(name, files.merge.clone()),
            b"meta" => at.file(name, durable.tells(calls::record)),
            b"origin" => at.file(name, Fixed::new(Vec::new())),
            b"rw" => rw::root(&durable.space, Arc::new(at.clone())),
            b"state" => at.file(name, durable.tells(write_state)),
            _ => return Err(failure::no_name(name)),
        })
    }

    async fn sync(&self, call: &Call) -> Result<()> {
        self.0.sync(call).await
    }
}

fn write_state(transaction: &Transaction) -> Vec<u8> {
    match &transaction.state {
        State::Open => "open\n".into(),
        State::Committing { new, .. } => format!("committing {new}\n"),
        State::Committed(head) => format!("committed {head}\n"),
    }
    .into_bytes()
}
