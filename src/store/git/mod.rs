//! A Git repository on disk as an engine.
//!
//! - Only what lies below here knows paths, lock files and gix.
//! - Opening writes nothing.
//! - Everything stays readable and writable for stock git, at any time, in any
//!   number of processes.

mod deltas;
mod durable;
mod loose;
mod objects;
mod stream;

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::model::{HashKind, ObjectId};
use crate::store::engine::{Durability, Object, ObjectKind};
use crate::store::{Error, Result};

use durable::{Keeping, Shared};
use loose::{Loose, Received};
use objects::Objects;

/// Packs that one repository may have: gix reserves a slot for each.
const PACK_SLOTS: u16 = 4096;

/// How a repository is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    pub durability: Durability,
    /// Take the nearest repository at or above the path.
    pub discover: bool,
}

/// A Git repository.
pub struct Git {
    repo: gix::ThreadSafeRepository,
    hash: HashKind,
    objects: Objects,
    loose: Loose,
}

impl Git {
    /// Opens a repository: bare, or with a work tree, or a linked work tree.
    ///
    /// None there: [`Error::NotFound`]. Of a format dk cannot write:
    /// [`Error::Unsupported`]. Somebody else's: [`Error::Denied`].
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self> {
        let repo = locate(path, options.discover)?;
        Self::from_repo(repo, options.durability)
    }

    /// Makes a bare repository, or opens the one that is there.
    pub fn init(path: &Path, hash: HashKind) -> Result<Self> {
        let _ = (path, hash);
        Err(Error::Unsupported("init".into()))
    }

    fn from_repo(repo: gix::ThreadSafeRepository, durability: Durability) -> Result<Self> {
        let local = repo.to_thread_local();
        let hash = match local.object_hash() {
            gix::hash::Kind::Sha256 => HashKind::Sha256,
            _ => HashKind::Sha1,
        };
        let config = local.config_snapshot();
        let keeping = Keeping {
            sync: durability == Durability::Strict,
            shared: config
                .string("core.sharedRepository")
                .map_or(Shared::Umask, |value| Shared::parse(&value.to_string())),
        };
        let level = config
            .integer("core.looseCompression")
            .or_else(|| config.integer("core.compression"))
            .map(|level| match level {
                -1 => gix::zlib::Compression::DEFAULT,
                level => i32::try_from(level)
                    .ok()
                    .and_then(gix::zlib::Compression::new)
                    .unwrap_or(gix::zlib::Compression::BEST_SPEED),
            })
            .unwrap_or(gix::zlib::Compression::BEST_SPEED);
        let dir = local.common_dir().join("objects");
        let dir = std::path::absolute(&dir)
            .map_err(Error::io(format!("cannot find {}", dir.display())))?;
        Ok(Self {
            objects: Objects::new(repo.objects.clone(), hash, dir.clone())?,
            loose: Loose {
                dir,
                hash,
                keeping,
                level,
            },
            hash,
            repo,
        })
    }

    pub fn hash_kind(&self) -> HashKind {
        self.hash
    }

    pub fn is_read_only(&self) -> bool {
        use rustix::fs::{Access, access};
        let common = self.repo.refs.common_dir_resolved();
        [common, &self.loose.dir]
            .iter()
            .any(|dir| access(*dir, Access::WRITE_OK).is_err())
    }

    pub fn find(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<Option<ObjectKind>> {
        self.objects.find(id, buffer)
    }

    pub fn header(&self, id: &ObjectId) -> Result<Option<(ObjectKind, u64)>> {
        self.objects.header(id)
    }

    pub fn open_object(&self, id: &ObjectId) -> Result<Option<Box<dyn Read + Send>>> {
        self.objects.open(id)
    }

    pub fn with_prefix(&self, hex: &str, limit: usize) -> Result<Vec<ObjectId>> {
        self.objects.with_prefix(hex, limit)
    }

    pub fn write(&self, objects: &[Object]) -> Result<()> {
        self.loose.write(
            objects
                .iter()
                .filter(|object| !self.objects.keep_alive(&object.id)),
        )
    }

    pub fn put(&self, reader: &mut dyn Read, size: Option<u64>) -> Result<ObjectId> {
        match self.loose.receive(reader, size)? {
            Received::Small(object) => {
                self.write(std::slice::from_ref(&object))?;
                Ok(object.id)
            }
            Received::Large(id, file) => {
                if !self.objects.keep_alive(&id) {
                    self.loose.place(&id, file)?;
                }
                Ok(id)
            }
        }
    }
}

fn options() -> gix::open::Options {
    gix::open::Options::default()
        .object_store_slots(gix::odb::store::init::Slots::Given(PACK_SLOTS))
        .bail_if_untrusted(true)
}

fn locate(path: &Path, discover: bool) -> Result<gix::ThreadSafeRepository> {
    let absolute =
        std::path::absolute(path).map_err(Error::io(format!("cannot find {}", path.display())))?;
    let found = if discover {
        gix::ThreadSafeRepository::discover_opts(
            &absolute,
            gix::discover::upwards::Options::default().apply_environment(),
            gix::sec::trust::Mapping {
                full: options(),
                reduced: options(),
            },
        )
    } else {
        options().open(&absolute)
    };
    found.map_err(|error| unopened(&absolute, error))
}

fn unopened(path: &PathBuf, error: gix::Error) -> Error {
    if error.is_not_found() {
        return Error::NotFound(format!("a repository at {}", path.display()));
    }
    Error::Failed {
        what: format!("cannot open the repository {}", path.display()),
        source: error.into(),
    }
}
