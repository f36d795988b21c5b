//! `/branch`: the branches, and what each of them has.
//!
//! A connection sees the branches of the store and those it made itself, which
//! come into being with their first commit. A branch's directory follows its
//! renaming: all that is below it asks its [`Cell`] for the name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use futures_util::future::BoxFuture;

use crate::model::request::{Expect, MoveOptions};
use crate::model::text::{Rename, Reset, percent_decode, percent_encode};
use crate::model::{BranchName, Kind, ObjectId};
use crate::store::engine::HeadName;
use crate::store::{self, Store};

use super::entry::{Dir, Folder};
use super::export::Export;
use super::files::{Command, Recent, Status, Turn, lock};
use super::node::{Call, Create, Error, Node, Result, Shape};
use super::root::named;
use super::snapshots::{Diffs, parse_id};
use super::{Connection, World, calls, durable, failure, live, transaction, view, who};

/// The name of a branch as one element of a path: text stays text.
pub fn encode(name: &BranchName) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '/' | '%' => out.extend_from_slice(format!("%{:02X}", c as u32).as_bytes()),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend_from_slice(&percent_encode(chunk.invalid(), b""));
    }
    out
}

/// Reads a name in either spelling: a slash may stand for itself.
fn decode(element: &[u8]) -> Result<Vec<u8>> {
    percent_decode(element).ok_or_else(|| {
        let shown = crate::model::text::quote(element);
        let message = format!("{shown} is no name: after % two hexadecimal digits follow");
        Error::new(Kind::Invalid, message)
    })
}

/// What one connection knows of a branch.
pub struct Cell {
    name: Mutex<BranchName>,
    pub transactions: transaction::Transactions,
    commands: OnceLock<Commands>,
    /// A commit it was at, with its tree and time.
    seen: Mutex<Option<(ObjectId, ObjectId, i64)>>,
    /// The turn in which it was looked up last, with its tree and time.
    turn: Mutex<Option<(u64, ObjectId, i64)>>,
}

/// The files of a branch that keep a result.
struct Commands {
    fast_forward: Arc<Command>,
    reset: Arc<Command>,
    rename: Arc<Command>,
}

impl Cell {
    fn new(name: BranchName) -> Arc<Self> {
        Arc::new(Self {
            name: Mutex::new(name),
            transactions: transaction::Transactions::default(),
            commands: OnceLock::new(),
            seen: Mutex::default(),
            turn: Mutex::default(),
        })
    }

    /// Returns the head's tree, or an empty one, and since when it is. Blocks.
    pub fn tree(&self, store: &Store) -> store::Result<(ObjectId, i64)> {
        let Some(head) = store.head(&self.name())? else {
            return Ok((store.objects.empty_tree(), 0));
        };
        if let Some(known) = self.tree_of(head) {
            return Ok(known);
        }
        let commit = store.objects.commit(&head)?;
        let time = commit.committer.time.seconds;
        *lock(&self.seen) = Some((head, commit.tree, time));
        Ok((commit.tree, time))
    }

    /// As [`Cell::tree`], where that needs no thread to wait on. What comes
    /// together is answered from one look.
    pub fn quick_tree(&self, store: &Store, call: &Call) -> Option<(ObjectId, i64)> {
        let turn = call.turn();
        if let (Some(turn), Some((last, tree, time))) = (turn, *lock(&self.turn))
            && turn == last
        {
            return Some((tree, time));
        }
        let (tree, time) = match store.quick_head(&self.name())? {
            None => (store.objects.empty_tree(), 0),
            Some(head) => self.tree_of(head)?,
        };
        if let Some(turn) = turn {
            *lock(&self.turn) = Some((turn, tree, time));
        }
        Some((tree, time))
    }

    /// Returns the tree of a head and since when it is, where that is known.
    fn tree_of(&self, head: ObjectId) -> Option<(ObjectId, i64)> {
        let seen = *lock(&self.seen);
        let (_, tree, time) = seen.filter(|(commit, ..)| *commit == head)?;
        Some((tree, time))
    }

    pub fn name(&self) -> BranchName {
        lock(&self.name).clone()
    }
}

/// The branches of one connection. Looking one up and making one take turns:
/// what is asked for right behind the making of it finds it.
#[derive(Default)]
pub struct Branches {
    cells: Mutex<Cells>,
    /// Those whose commands were used.
    recent: Recent<Cell>,
    turn: Turn<()>,
}

#[derive(Default)]
struct Cells {
    /// Made by this connection, or with open transactions.
    touched: BTreeMap<BranchName, Arc<Cell>>,
    /// Looked up, and still in somebody's hands.
    known: HashMap<BranchName, Weak<Cell>>,
    /// Sizes of `known` below which it is not cleared out.
    enough: usize,
}

impl Branches {
    fn touched(&self) -> BTreeSet<BranchName> {
        lock(&self.cells).touched.keys().cloned().collect()
    }

    fn get(&self, name: &BranchName) -> Option<Arc<Cell>> {
        lock(&self.cells).touched.get(name).cloned()
    }

    /// Returns the cell of a branch, made where there is none.
    fn cell(&self, name: &BranchName) -> Arc<Cell> {
        let cells = &mut *lock(&self.cells);
        if let Some(cell) = cells.touched.get(name) {
            return cell.clone();
        }
        if let Some(cell) = cells.known.get(name).and_then(Weak::upgrade) {
            return cell;
        }
        if cells.known.len() >= cells.enough {
            cells.known.retain(|_, cell| cell.strong_count() > 0);
            cells.enough = cells.known.len() * 2 + 16;
        }
        let cell = Cell::new(name.clone());
        cells.known.insert(name.clone(), Arc::downgrade(&cell));
        cell
    }

    /// Keeps a branch in the listing whatever becomes of it.
    pub fn touch(&self, name: &BranchName) -> Arc<Cell> {
        let cell = self.cell(name);
        lock(&self.cells).touched.insert(name.clone(), cell.clone());
        cell
    }

    fn forget(&self, name: &BranchName) {
        let cells = &mut *lock(&self.cells);
        cells.touched.remove(name);
        cells.known.remove(name);
    }

    fn rename(&self, cell: &Arc<Cell>, to: &BranchName) {
        let from = std::mem::replace(&mut *lock(&cell.name), to.clone());
        let cells = &mut *lock(&self.cells);
        if cells.touched.remove(&from).is_some() {
            cells.touched.insert(to.clone(), cell.clone());
        } else {
            cells.touched.remove(to);
        }
        cells.known.remove(&from);
        cells.known.insert(to.clone(), Arc::downgrade(cell));
    }
}

/// `/branch`.
pub struct All(pub Arc<Connection>);

impl All {
    /// Refuses a branch beside one it would contain, or be contained by.
    async fn fits(&self, name: &BranchName) -> Result<()> {
        let beside = |other: &BranchName| other.contains_or_within(name);
        let other = self.0.branches.touched().into_iter().find(beside);
        let other = match other {
            Some(other) => Some(other),
            None => {
                let branches = self.0.world.run(|store| store.branches()).await?;
                let mut names = branches.into_iter().map(|branch| branch.name);
                names.find(beside)
            }
        };
        match other {
            Some(other) => {
                let what = format!("cannot create branch {name}: branch {other}");
                Err(failure::exists(what))
            }
            None => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Folder for All {
    fn writable(&self) -> bool {
        true
    }

    fn mtime(&self) -> i64 {
        self.0.world.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        let branches = self.0.world.run(|store| store.branches()).await?;
        let mut names = self.0.branches.touched();
        names.extend(branches.into_iter().map(|branch| branch.name));
        let entry = |name: &BranchName| (encode(name), Shape::Dir);
        Ok(names.iter().map(entry).collect())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let missing = || failure::no_entry(format!("branch {}", crate::model::text::quote(name)));
        let branch = BranchName::new(decode(name)?).map_err(|_| missing())?;
        let _turn = self.0.branches.turn.take().await;
        let cell = match self.0.branches.get(&branch) {
            Some(cell) => cell,
            None => {
                let head = self.0.world.head(&branch).await?;
                head.ok_or_else(missing)?;
                self.0.branches.cell(&branch)
            }
        };
        Ok(dir(at, &self.0, &cell))
    }

    async fn create(&self, at: &Dir, _: &Call, name: &[u8], what: Create) -> Result<Arc<dyn Node>> {
        if what != Create::Dir {
            return Err(failure::only_directories());
        }
        let branch = BranchName::new(decode(name)?)?;
        let _turn = self.0.branches.turn.take().await;
        // Where there is one of this name, nothing stands in its way.
        if !matches!(self.0.world.store.quick_head(&branch), Some(Some(_))) {
            self.fits(&branch).await?;
        }
        let cell = self.0.branches.touch(&branch);
        Ok(dir(at, &self.0, &cell))
    }
}

fn dir(at: &Dir, connection: &Arc<Connection>, cell: &Arc<Cell>) -> Arc<dyn Node> {
    let name = encode(&cell.name());
    let branch = Branch {
        connection: connection.clone(),
        cell: cell.clone(),
        all: at.key(),
    };
    at.dir(&name, branch)
}

/// `/branch/B`.
struct Branch {
    connection: Arc<Connection>,
    cell: Arc<Cell>,
    /// The key of `/branch`.
    all: u64,
}

/// The entries of a branch, those of the ancestor first.
const ENTRIES: &[(&[u8], Shape)] = &[
    (b"ro", Shape::Dir),
    (b"transactions", Shape::Dir),
    (b"watch", Shape::Dir),
    (b"head.live", Shape::File),
    (b"fast-forward", Shape::File),
    (b"reflog", Shape::File),
    (b"head", Shape::File),
    (b"diff", Shape::Dir),
    (b"since", Shape::Dir),
    (b"reset", Shape::File),
    (b"rename", Shape::File),
    (b"tx", Shape::Dir),
    (b"apply", Shape::File),
    (b"merge", Shape::File),
    (b"begin", Shape::File),
    (b"export.tar", Shape::File),
];

impl Branch {
    fn world(&self) -> &Arc<World> {
        &self.connection.world
    }

    fn commands(&self) -> &Commands {
        self.connection.branches.recent.keep(&self.cell);
        self.cell.commands.get_or_init(|| Commands {
            fast_forward: self.command(fast_forward),
            reset: self.command(reset),
            rename: self.rename_command(),
        })
    }

    /// Makes a command that moves this branch. The cell holds the command, so
    /// the command must not hold the cell.
    fn command(
        &self,
        run: impl Fn(&Store, &BranchName, &[u8]) -> Result<Vec<u8>> + Clone + Send + Sync + 'static,
    ) -> Arc<Command> {
        let (world, cell) = (self.world().clone(), Arc::downgrade(&self.cell));
        let command = move |call: &Call, text: Vec<u8>| -> BoxFuture<'static, Result<Vec<u8>>> {
            let (world, call, run) = (world.clone(), call.clone(), run.clone());
            let branch = cell.upgrade().map(|cell| cell.name());
            Box::pin(async move {
                let branch = branch.ok_or_else(|| failure::no_entry("the branch"))?;
                let work = move |store: &Arc<Store>| run(store, &branch, &text);
                world.change(&call, work).await
            })
        };
        Arc::new(Command::new(command))
    }

    fn rename_command(&self) -> Arc<Command> {
        let connection = Arc::downgrade(&self.connection);
        let cell = Arc::downgrade(&self.cell);
        let command = move |call: &Call, text: Vec<u8>| -> BoxFuture<'static, Result<Vec<u8>>> {
            let (connection, cell) = (connection.upgrade(), cell.upgrade());
            let call = call.clone();
            Box::pin(async move {
                let (connection, cell) = connection
                    .zip(cell)
                    .ok_or_else(|| failure::no_entry("the branch"))?;
                let asked = Rename::read(&text).map_err(malformed)?;
                let to = BranchName::new(&asked.to)?;
                let (from, new) = (cell.name(), to.clone());
                let work = move |store: &Arc<Store>| {
                    Ok(store.rename_branch(&from, &new, asked.force, &who(store)?)?)
                };
                let head = connection.world.change(&call, work).await?;
                connection.branches.rename(&cell, &to);
                Ok(format!("{head}\n").into_bytes())
            })
        };
        Arc::new(Command::new(command))
    }
}

/// A command whose words are not as they must be.
pub fn malformed(error: crate::model::text::Malformed) -> Error {
    Error::new(Kind::Invalid, error.to_string())
}

/// Moves a head forward to a commit.
fn fast_forward(store: &Store, branch: &BranchName, text: &[u8]) -> Result<Vec<u8>> {
    let to = parse_id(store.engine.hash_kind(), text)?;
    let options = MoveOptions {
        ff_only: true,
        ..MoveOptions::default()
    };
    match store.move_head(branch, &to, options, &who(store)?) {
        Ok(()) => Ok(Vec::new()),
        Err(
            store::Error::HeadMoved { actual, .. } | store::Error::NotFastForward { actual, .. },
        ) => Err(failure::not_fast_forward(&to, actual)),
        Err(error) => Err(error.into()),
    }
}

/// Moves a head anywhere, or deletes it; tells where it was.
fn reset(store: &Store, branch: &BranchName, text: &[u8]) -> Result<Vec<u8>> {
    /// Moves by others that are waited out.
    const TRIES: usize = 1000;
    let asked = Reset::read(text).map_err(malformed)?;
    let author = who(store)?;
    let told = |head: Option<ObjectId>| match head {
        Some(head) => format!("{head}\n").into_bytes(),
        None => b"0\n".to_vec(),
    };
    let Some(to) = asked.to else {
        return Ok(told(Some(store.delete_branch(
            branch,
            asked.options,
            &author,
        )?)));
    };
    for _ in 0..TRIES {
        let head = store.head(branch)?;
        let mut options = asked.options;
        let anywhere = options.expect == Expect::Any;
        if anywhere {
            options.expect = head.map_or(Expect::Unborn, Expect::Head);
        }
        match store.move_head(branch, &to, options, &author) {
            // It moved since it was read.
            Err(store::Error::HeadMoved { .. }) if anywhere => {}
            Err(error) => return Err(error.into()),
            Ok(()) => {
                return Ok(told(match options.expect {
                    Expect::Head(head) => Some(head),
                    _ => None,
                }));
            }
        }
    }
    let message = format!("branch {branch} moved a thousand times over");
    Err(Error::new(Kind::Busy, message))
}

#[async_trait::async_trait]
impl Folder for Branch {
    fn name(&self) -> Option<Vec<u8>> {
        Some(encode(&self.cell.name()))
    }

    fn key(&self) -> Option<u64> {
        Some(super::entry::key(self.all, &encode(&self.cell.name())))
    }

    fn mtime(&self) -> i64 {
        self.world().started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(named(ENTRIES))
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let (world, cell) = (self.world(), &self.cell);
        Ok(match name {
            b"ro" => view::live(world, at.place(name), cell.clone()),
            b"transactions" => at.dir(
                name,
                transaction::Folder {
                    connection: self.connection.clone(),
                    cell: cell.clone(),
                },
            ),
            b"watch" => at.dir(
                name,
                live::Watched {
                    world: world.clone(),
                    cell: cell.clone(),
                    path: crate::model::TreePath::root(),
                },
            ),
            b"head.live" => at.file(name, live::head(world, cell)),
            b"fast-forward" => at.shared_file(name, self.commands().fast_forward.clone()),
            b"reflog" => at.file(name, live::reflog(world, cell)),
            b"head" => at.file(name, head(world, cell)),
            b"diff" => {
                let cell = cell.clone();
                let now = move |store: &Store| Ok(cell.tree(store)?.0);
                at.dir(name, Diffs::new(world, Arc::new(now)))
            }
            b"since" => at.dir(
                name,
                live::SinceAll {
                    world: world.clone(),
                    cell: cell.clone(),
                },
            ),
            b"reset" => at.shared_file(name, self.commands().reset.clone()),
            b"rename" => at.shared_file(name, self.commands().rename.clone()),
            b"tx" => at.dir(
                name,
                durable::All {
                    connection: self.connection.clone(),
                    cell: Some(cell.clone()),
                },
            ),
            b"apply" => at.file(name, calls::of_branch(world, cell, calls::edit)),
            b"merge" => at.file(name, calls::of_branch(world, cell, calls::merge)),
            b"begin" => at.file(name, calls::of_branch(world, cell, calls::begin)),
            b"export.tar" => at.file(name, export(world, cell)),
            _ => return Err(failure::no_name(name)),
        })
    }

    async fn rename(&self, call: &Call, into: &Arc<dyn Node>, name: &[u8]) -> Result<()> {
        if into.id().path != self.all {
            return Err(failure::read_only_dir());
        }
        let to = BranchName::new(decode(name)?)?;
        let from = self.cell.name();
        if from == to {
            return Ok(());
        }
        let (old, new) = (from.clone(), to.clone());
        let work = move |store: &Arc<Store>| {
            let taken = |name: &BranchName| store.engine.head(&HeadName::branch(name));
            if taken(&new)?.is_some() {
                return Err(failure::is_directory(format!("branch {new}")));
            }
            // One that has no commit yet is a name only.
            if taken(&old)?.is_some() {
                store.rename_branch(&old, &new, false, &who(store)?)?;
            }
            Ok(())
        };
        self.world().change(call, work).await?;
        self.connection.branches.rename(&self.cell, &to);
        Ok(())
    }

    async fn remove(&self, call: &Call, _: bool) -> Result<()> {
        let branch = self.cell.name();
        let name = branch.clone();
        let work = move |store: &Arc<Store>| match store.delete_branch(
            &name,
            MoveOptions::default(),
            &who(store)?,
        ) {
            Ok(_) | Err(store::Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error.into()),
        };
        self.world().change(call, work).await?;
        self.connection.branches.forget(&branch);
        Ok(())
    }
}

/// `head`.
fn head(world: &Arc<World>, cell: &Arc<Cell>) -> Status {
    let (world, cell) = (world.clone(), cell.clone());
    Status::new(move |_: &Call| -> BoxFuture<'static, Result<Vec<u8>>> {
        let (world, branch) = (world.clone(), cell.name());
        Box::pin(async move { Ok(live::head_line(world.head(&branch).await?)) })
    })
}

/// `export.tar`, of the head when it is opened.
fn export(world: &Arc<World>, cell: &Arc<Cell>) -> Export {
    let (asked, cell) = (world.clone(), cell.clone());
    Export::new(world, move || -> BoxFuture<'static, _> {
        let (world, cell) = (asked.clone(), cell.clone());
        Box::pin(async move { world.run(move |store| cell.tree(store)).await })
    })
}
