//! Noticing that heads moved, whoever moved them.
//!
//! Own moves are told at once. For foreign ones a thread listens to the file
//! system, and each second looks at the times of `packed-refs` and of every
//! folder of heads, for notification may be missing or lost (network file
//! systems, containers, full queues). Telling once too often is allowed,
//! missing a move is not.
//!
//! The first event of a burst is told at once, the rest together [`BURST`]
//! later. The thread belongs to the store: dropping that stops and joins it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::watch;

use crate::store::{Error, Result};

/// How often the times of files are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a burst of events is gathered after its first one.
const BURST: Duration = Duration::from_millis(5);
/// A change this recent may be followed by one that bears the same time.
const GRAIN: Duration = Duration::from_millis(50);

/// Who is told, and who listens.
pub struct Notice {
    common_dir: PathBuf,
    number: watch::Sender<u64>,
    listener: Mutex<Option<Listener>>,
}

struct Listener {
    messages: mpsc::Sender<Message>,
    thread: JoinHandle<()>,
}

enum Message {
    Moved,
    /// Notifications were lost: compare the times now.
    Look,
    Stop,
}

impl Notice {
    pub fn new(common_dir: &Path) -> Self {
        Self {
            common_dir: common_dir.to_owned(),
            number: watch::Sender::new(0),
            listener: Mutex::new(None),
        }
    }

    /// Tells that heads have moved.
    pub fn bump(&self) {
        bump(&self.number);
    }

    /// Returns the number that changes, and begins listening at the first call.
    pub fn start(&self) -> Result<watch::Receiver<u64>> {
        let mut slot = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.number.subscribe();
        if slot.is_none() {
            *slot = Some(self.listen().map_err(Error::io("cannot start a thread"))?);
        }
        Ok(receiver)
    }

    fn listen(&self) -> io::Result<Listener> {
        let (messages, inbox) = mpsc::channel();
        let watcher = self.watcher(messages.clone());
        let mut fingerprint = Fingerprint::new(&self.common_dir);
        // What moves from here on is noticed: the watches and the times stand.
        fingerprint.changed();
        let number = self.number.clone();
        let thread = thread::Builder::new()
            .name("dk-notice".into())
            .spawn(move || {
                let _watcher = watcher;
                run(&inbox, &mut fingerprint, &number);
            })?;
        Ok(Listener { messages, thread })
    }

    /// Listens where that is possible; the times of files do where it is not.
    fn watcher(&self, messages: mpsc::Sender<Message>) -> Option<notify::RecommendedWatcher> {
        let refs = self.common_dir.join("refs");
        let tell = move |event: notify::Result<notify::Event>| {
            let message = match event {
                Ok(event) if event.need_rescan() => Message::Look,
                Ok(event) if moves_heads(&event, &refs) => Message::Moved,
                Ok(_) => return,
                Err(_) => Message::Look,
            };
            let _ = messages.send(message);
        };
        let mut watcher = notify::recommended_watcher(tell).ok()?;
        // Each by itself: the limit on watches may be reached half way.
        let _ = watcher.watch(&self.common_dir, RecursiveMode::NonRecursive);
        let _ = watcher.watch(&self.common_dir.join("refs"), RecursiveMode::Recursive);
        Some(watcher)
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        let slot = self
            .listener
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = slot.take() {
            let _ = listener.messages.send(Message::Stop);
            let _ = listener.thread.join();
        }
    }
}

fn bump(number: &watch::Sender<u64>) {
    number.send_modify(|number| *number = number.wrapping_add(1));
}

fn run(
    inbox: &mpsc::Receiver<Message>,
    fingerprint: &mut Fingerprint,
    number: &watch::Sender<u64>,
) {
    let mut look_at = Instant::now() + PERIOD;
    loop {
        match inbox.recv_timeout(look_at.saturating_duration_since(Instant::now())) {
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Message::Moved) => {
                bump(number);
                match gather(inbox) {
                    Gathered::Nothing => {}
                    Gathered::Moves => bump(number),
                    Gathered::Stop => return,
                }
            }
            Ok(Message::Look) | Err(RecvTimeoutError::Timeout) => {
                if fingerprint.changed() {
                    bump(number);
                }
                look_at = Instant::now() + PERIOD;
            }
        }
    }
}

enum Gathered {
    Nothing,
    Moves,
    Stop,
}

/// Takes what else comes within a burst.
fn gather(inbox: &mpsc::Receiver<Message>) -> Gathered {
    let end = Instant::now() + BURST;
    let mut gathered = Gathered::Nothing;
    loop {
        match inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Message::Moved | Message::Look) => gathered = Gathered::Moves,
            Ok(Message::Stop) => return Gathered::Stop,
            Err(_) => return gathered,
        }
    }
}

/// Tells whether an event may be a move: not that of a lock, nor of a reader.
fn moves_heads(event: &notify::Event, refs: &Path) -> bool {
    let of_interest = match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(kind) => matches!(kind, ModifyKind::Name(_)),
        EventKind::Any | EventKind::Create(_) | EventKind::Remove(_) | EventKind::Other => true,
    };
    let is_ref = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name == "packed-refs")
            || (path.starts_with(refs) && path.extension().is_none_or(|end| end != "lock"))
    };
    of_interest && event.paths.iter().any(is_ref)
}

/// The times of everything whose change may be a move.
struct Fingerprint {
    packed: PathBuf,
    packed_time: Option<Times>,
    roots: [PathBuf; 2],
    folders: HashMap<PathBuf, Folder>,
    /// Something had changed so recently that the next look must not trust it.
    young: bool,
}

type Times = (u64, i64, i64);

struct Folder {
    times: Times,
    folders: Vec<PathBuf>,
}

impl Fingerprint {
    fn new(common_dir: &Path) -> Self {
        Self {
            packed: common_dir.join("packed-refs"),
            packed_time: None,
            roots: ["refs/heads", "refs/dk"].map(|root| common_dir.join(root)),
            folders: HashMap::new(),
            young: false,
        }
    }

    /// Tells whether anything is different from the last look. Costs one
    /// stat(2) for each folder; only folders that changed are listed.
    fn changed(&mut self) -> bool {
        let mut changed = std::mem::take(&mut self.young);
        let packed = fs::metadata(&self.packed).ok();
        self.note_age(packed.as_ref());
        let packed_time = packed.as_ref().map(times);
        changed |= packed_time != self.packed_time;
        self.packed_time = packed_time;

        let mut before = std::mem::take(&mut self.folders);
        let mut waiting: Vec<PathBuf> = self.roots.to_vec();
        while let Some(path) = waiting.pop() {
            let known = before.remove(&path);
            let Ok(file) = fs::metadata(&path) else {
                changed |= known.is_some();
                continue;
            };
            self.note_age(Some(&file));
            let times = times(&file);
            let folder = match known {
                Some(folder) if folder.times == times => folder,
                _ => {
                    changed = true;
                    Folder {
                        times,
                        folders: folders(&path),
                    }
                }
            };
            waiting.extend(folder.folders.iter().cloned());
            self.folders.insert(path, folder);
        }
        changed | !before.is_empty()
    }

    fn note_age(&mut self, file: Option<&fs::Metadata>) {
        let modified = file.and_then(|file| file.modified().ok());
        let age = modified.and_then(|at| SystemTime::now().duration_since(at).ok());
        self.young |= age.is_some_and(|age| age < GRAIN);
    }
}

fn times(file: &fs::Metadata) -> Times {
    (file.ino(), file.mtime(), file.mtime_nsec())
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
