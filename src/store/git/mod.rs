//! A Git repository on disk as an engine.
//!
//! - Only what lies below here knows paths, lock files and gix.
//! - Opening writes nothing.
//! - Everything stays readable and writable for stock git, at any time, in any
//!   number of processes.

mod bulk;
mod claim;
mod deltas;
mod durable;
mod fetch;
mod folders;
mod graph;
mod identity;
mod init;
mod known;
mod locate;
mod lock;
mod loose;
mod moves;
mod notice;
mod objects;
mod pack;
mod packed;
mod programs;
mod progress;
mod recovery;
mod reflog;
pub mod refs;
mod remotes;
mod repository;
mod settings;
mod stream;
mod temp;
mod turn;
mod unpack;
mod view;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::model::{HashKind, ObjectId};
use crate::store::engine::{
    Bulk, Durability, Engine, HeadName, Heads, Node, Object, ObjectKind, ObjectStream, Repository,
    Step,
};
use crate::store::{Error, Result};

use bulk::GitBulk;
use durable::{Keeping, Shared, Written};
pub use identity::user;
use locate::{Located, locate};
use loose::{Blob, Loose};
use moves::Prepared;
use objects::{Indexes, Objects};
use refs::Refs;
use settings::Settings;
pub use temp::abandon;

/// A batch of so many objects is written as a pack.
const BULK_FROM: usize = 200;

/// A Git repository.
pub struct Git {
    /// The work tree, or the repository itself where it has none.
    path: PathBuf,
    hash: HashKind,
    objects: Objects,
    loose: Loose,
    refs: Refs,
    /// The configuration it was opened with, and when: see `repository`.
    opened: Mutex<Option<(Instant, Arc<gix::config::File>)>>,
    /// What tells it from every other: as long as it is open, the same.
    id: OnceLock<String>,
}

impl Git {
    /// Opens the repository at a path, or with `discover` the nearest one at or
    /// above it: bare, or with a work tree, or a linked work tree.
    ///
    /// None there: [`Error::NotFound`]. Of a format dk cannot write:
    /// [`Error::Unsupported`]. Somebody else's: [`Error::Denied`].
    pub fn open(path: &Path, durability: Durability, discover: bool) -> Result<Self> {
        let found = locate(&absolute(path)?, discover)?;
        let Located {
            common_dir,
            hash,
            config,
            ..
        } = found;
        let dir = common_dir.join("objects");
        let loose = Loose {
            hash,
            keeping: keeping(&config, durability),
            level: level(&config),
            dir: dir.clone(),
        };
        let enabled = |key: &str| config.boolean(key).ok().flatten().unwrap_or(true);
        let indexes = Indexes {
            multi_pack: enabled("core.multiPackIndex"),
            commit_graph: enabled("core.commitGraph"),
        };
        let refs = Refs::open(&found.git_dir, &common_dir, hash, durability)?;
        if found.git_dir == common_dir {
            // Read just now; a linked work tree's would differ.
            refs.set_settings(Settings::of(&config, &common_dir));
        }
        Ok(Self {
            path: found.work_tree.unwrap_or(found.git_dir),
            hash,
            objects: Objects::new(dir, hash, indexes)?,
            loose,
            refs,
            opened: Mutex::new(Some((Instant::now(), config))),
            id: OnceLock::new(),
        })
    }

    /// Makes a bare repository and opens it, or opens the one that is there.
    pub fn init(path: &Path, hash: HashKind) -> Result<Self> {
        match Self::open(path, Durability::Strict, false) {
            Err(Error::NotFound(_)) => {
                init::bare(&absolute(path)?, hash)?;
                Self::open(path, Durability::Strict, false)
            }
            opened => opened,
        }
    }

    /// Returns the absolute path of the work tree, or of the repository itself
    /// where it has none.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Engine for Git {
    fn hash_kind(&self) -> HashKind {
        self.hash
    }

    fn is_read_only(&self) -> bool {
        use rustix::fs::{Access, access};
        self.refs.is_read_only()
            || access(&self.loose.dir, Access::WRITE_OK | Access::EXEC_OK).is_err()
    }

    fn find(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Option<ObjectKind>> {
        self.objects.find(id, buffer)
    }

    fn header(&self, id: &ObjectId) -> Result<Option<(ObjectKind, u64)>> {
        self.objects.header(id)
    }

    fn is_shallow(&self, id: &ObjectId) -> bool {
        self.objects.is_shallow(id)
    }

    fn indexed(&self, id: &ObjectId) -> Option<Node> {
        self.objects.indexed(id)
    }

    fn open(&self, id: &ObjectId) -> Result<Option<Box<dyn ObjectStream>>> {
        self.objects.open(id)
    }

    fn with_prefix(&self, hex: &str, limit: usize) -> Result<Vec<ObjectId>> {
        self.objects.with_prefix(hex, limit)
    }

    fn write(&self, objects: &[Object]) -> Result<()> {
        if objects.len() >= BULK_FROM {
            let mut bulk = GitBulk::new(&self.objects, &self.loose);
            for object in objects {
                bulk.add_object(object.clone())?;
            }
            return Box::new(bulk).finish();
        }
        self.loose.write(
            objects
                .iter()
                .filter(|object| !self.objects.keep_alive(&object.id)),
        )
    }

    fn put(&self, reader: &mut dyn Read, size: Option<u64>) -> Result<ObjectId> {
        match self.loose.receive(reader, size)? {
            Blob::Small(object) => {
                self.write(std::slice::from_ref(&object))?;
                Ok(object.id)
            }
            Blob::Large(id, file) => {
                if !self.objects.keep_alive(&id) {
                    self.loose.place(&id, file)?;
                }
                Ok(id)
            }
        }
    }

    fn bulk(&self) -> Result<Box<dyn Bulk + '_>> {
        Ok(Box::new(GitBulk::new(&self.objects, &self.loose)))
    }

    fn head(&self, name: &HeadName) -> Result<Option<ObjectId>> {
        self.refs.head(name)
    }

    fn quick_head(&self, name: &HeadName) -> Option<Option<ObjectId>> {
        self.refs.quick_head(name)
    }

    fn heads(&self, prefix: &str) -> Result<Heads> {
        self.refs.heads(prefix)
    }

    fn move_in_steps(
        &self,
        steps: &[Step<'_>],
        fresh: &[Object],
        done: &mut dyn FnMut(&Step<'_>),
    ) -> Result<()> {
        if fresh.len() >= BULK_FROM {
            self.write(fresh)?;
        }
        let steps: Vec<&Step<'_>> = steps.iter().filter(|it| !it.moves.is_empty()).collect();
        let prepared = steps.iter().map(|step| self.refs.prepare(step.moves));
        let prepared = prepared.collect::<Result<Vec<_>>>()?;
        let missing = fresh
            .iter()
            .filter(|object| !self.objects.keep_alive(&object.id));
        let contents = prepared.iter().flat_map(Prepared::contents);
        let contents: Vec<&dyn Written> = contents.map(|it| it as &dyn Written).collect();
        let names = self.loose.write_content(missing, &contents)?;
        self.loose.keeping.sync_dirs(&names)?;
        let mut unchecked = fresh;
        for (step, prepared) in steps.into_iter().zip(prepared) {
            let mut recheck = || {
                for object in unchecked {
                    if !self.objects.keep_alive_thorough(&object.id)? {
                        self.loose.write([object])?;
                    }
                }
                for id in step.moves.iter().filter_map(|wanted| wanted.new) {
                    let made = fresh.iter().any(|object| object.id == id);
                    if !made && self.header(&id)?.is_none() {
                        return Err(Error::NotFound(format!("object {id}")));
                    }
                }
                Ok(())
            };
            self.refs
                .make(prepared, &step.note, step.lasting, &mut recheck)?;
            // From here on a head keeps them, or nobody will.
            unchecked = &[];
            done(step);
        }
        Ok(())
    }

    fn turn(&self) -> Result<Box<dyn Send + '_>> {
        Ok(Box::new(self.refs.turn()?))
    }

    fn is_checked_out(&self, name: &HeadName) -> Result<bool> {
        self.refs.is_checked_out(name)
    }

    fn changes(&self) -> Result<tokio::sync::watch::Receiver<u64>> {
        self.refs.changes()
    }

    fn repository(&self) -> Option<&dyn Repository> {
        Some(self)
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io(format!("cannot find {}", path.display())))
}

fn keeping(config: &gix::config::File, durability: Durability) -> Keeping {
    let shared = config.string("core.sharedRepository");
    Keeping {
        sync: durability == Durability::Strict,
        shared: shared.map_or(Shared::Umask, |value| Shared::parse(&value.to_string())),
    }
}

/// How hard to compress loose objects, as git-config(1) says.
fn level(config: &gix::config::File) -> Option<gix::zlib::Compression> {
    let number = |key: &str| config.integer(key).ok().flatten();
    match number("core.looseCompression").or_else(|| number("core.compression")) {
        Some(-1) => Some(gix::zlib::Compression::DEFAULT),
        level => gix::zlib::Compression::new(level?.try_into().ok()?),
    }
}
