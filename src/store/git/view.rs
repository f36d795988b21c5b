//! What of the objects was on disk at one time: places, packs, commit-graphs.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::model::{HashKind, ObjectId};
use crate::store::engine::Node;
use crate::store::{Error, Result};

use super::graph::Graph;
use super::objects::git_kind;
use super::unpack::Pack;

/// Two changes of a directory closer than this may show one time only.
const SETTLED: Duration = Duration::from_secs(2);

/// Where an object directory names others (gitrepository-layout).
const ALTERNATES: &str = "info/alternates";

/// What was on disk at one time.
pub(super) struct View {
    pub number: u64,
    /// The object directories, our own first.
    pub places: Vec<PathBuf>,
    stamp: Stamp,
    /// Whether a change after this view was made is sure to change the stamp.
    settled: AtomicBool,
    /// What decides where the stamp does not: a hash of all names.
    names: u64,
    /// Those of the packs there were.
    pub indexes: Vec<PathBuf>,
    packs: OnceLock<Vec<Pack>>,
    /// The pack that had what was looked for last.
    latest: AtomicUsize,
    graphs: OnceLock<Vec<Graph>>,
    /// Commits whose parents were never fetched (gitformat-shallow).
    pub shallow: HashSet<ObjectId>,
}

/// Times of what changes when packs or alternates come and go.
type Stamp = Vec<Option<SystemTime>>;

impl View {
    pub fn now(dir: &Path, number: u64) -> Result<Self> {
        let (places, now, stamp) = loop {
            let alternates = time(&dir.join(ALTERNATES));
            let mut places = vec![dir.to_owned()];
            if alternates.is_some() {
                let current = std::env::current_dir().unwrap_or_default();
                let found = gix::odb::alternate::resolve(dir.to_owned(), &current);
                places.extend(found.map_err(Error::failed(format!(
                    "cannot find the alternates of {}",
                    dir.display()
                )))?);
            }
            let now = SystemTime::now();
            let stamp = stamp(&places);
            // Else they came or went just now.
            if stamp.get(1) == Some(&alternates) {
                break (places, now, stamp);
            }
        };
        let (names, indexes) = names(&places);
        Ok(Self {
            number,
            settled: is_settled(&stamp, now).into(),
            stamp,
            names,
            indexes,
            shallow: shallow(dir),
            places,
            packs: OnceLock::new(),
            graphs: OnceLock::new(),
            latest: AtomicUsize::new(0),
        })
    }

    pub fn is_current(&self) -> bool {
        let now = SystemTime::now();
        if self.stamp != stamp(&self.places) {
            return false;
        }
        if self.settled.load(Ordering::Relaxed) {
            return true;
        }
        if self.names != names(&self.places).0 {
            return false;
        }
        self.settled
            .store(is_settled(&self.stamp, now), Ordering::Relaxed);
        true
    }

    /// Returns which pack has an object, and where.
    pub fn find(&self, id: &ObjectId, hash: HashKind) -> Option<(usize, u64)> {
        let packs = self.packs(hash);
        let latest = self.latest.load(Ordering::Relaxed);
        let others = (0..packs.len()).filter(|number| *number != latest);
        let found = std::iter::once(latest)
            .chain(others)
            .find_map(|number| Some((number, packs.get(number)?.offset(id)?)))?;
        self.latest.store(found.0, Ordering::Relaxed);
        Some(found)
    }

    pub fn indexed(&self, id: &ObjectId, hash: HashKind) -> Option<Node> {
        // A graph knows nothing of where history was cut.
        if !self.shallow.is_empty() {
            return None;
        }
        let graphs = self.graphs.get_or_init(|| {
            let places = self.places.iter();
            places
                .filter_map(|place| Graph::open(place, git_kind(hash)))
                .collect()
        });
        graphs.iter().find_map(|graph| graph.node(id))
    }

    pub fn packs(&self, hash: HashKind) -> &[Pack] {
        self.packs.get_or_init(|| {
            let indexes = self.indexes.iter();
            indexes
                .filter_map(|index| Pack::open(index, git_kind(hash)))
                .collect()
        })
    }
}

fn time(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn stamp(places: &[PathBuf]) -> Stamp {
    let mut stamp: Stamp = places
        .iter()
        .flat_map(|place| [time(&place.join("pack")), time(&place.join(ALTERNATES))])
        .collect();
    stamp.extend(places.first().map(|dir| time(&shallow_path(dir))));
    stamp
}

/// The file beside `objects` that lists the commits at which history is cut.
fn shallow_path(objects: &Path) -> PathBuf {
    objects.with_file_name("shallow")
}

fn shallow(objects: &Path) -> HashSet<ObjectId> {
    let text = fs::read(shallow_path(objects)).unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(ObjectId::from_hex).collect()
}

fn is_settled(stamp: &Stamp, now: SystemTime) -> bool {
    let long_ago = |time: &SystemTime| now.duration_since(*time).is_ok_and(|age| age > SETTLED);
    stamp.iter().flatten().all(long_ago)
}

/// Returns a hash of all names, and the indexes of packs.
fn names(places: &[PathBuf]) -> (u64, Vec<PathBuf>) {
    let mut hasher = DefaultHasher::new();
    let mut indexes = Vec::new();
    for place in places {
        fs::read(place.join(ALTERNATES)).ok().hash(&mut hasher);
        let folder = place.join("pack");
        let entries = fs::read_dir(&folder);
        let mut names: Vec<_> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .collect();
        names.sort_unstable();
        names.hash(&mut hasher);
        let paths = names.iter().map(|name| folder.join(name));
        indexes.extend(paths.filter(|path| path.extension().is_some_and(|it| it == "idx")));
    }
    (hasher.finish(), indexes)
}
