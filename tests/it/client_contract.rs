//! The contract of `client::Client`, one suite for every implementation.
//!
//! A behaviour not tested here is not promised. The cases of the ancestor's
//! client tests come first, under their names; then what dk adds.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use datakit::client::local::{Local, Options};
use datakit::client::remote::{self, Remote};
use datakit::client::*;
use datakit::model::*;
use datakit::store::engine::Durability;
use datakit::store::git::Git;

use crate::remote::served::Served;

mod ancestor;
mod branches;
mod transactions;
mod watches;

/// A store to test, and what must live as long as it.
pub struct Fixture {
    pub client: Arc<dyn Client>,
    _server: Option<Arc<Served>>,
    _folder: Option<tempfile::TempDir>,
}

pub async fn memory() -> Fixture {
    Fixture {
        client: Arc::new(Local::memory(HashKind::Sha1)),
        _server: None,
        _folder: None,
    }
}

pub async fn remote_memory() -> Fixture {
    let server = Served::memory();
    Fixture {
        client: Arc::new(server.remote().await),
        _server: Some(server),
        _folder: None,
    }
}

pub async fn remote_unix() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}/socket", folder.path().display());
    over_a_socket(folder, HashKind::Sha1, &socket).await
}

pub async fn remote_tcp() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    over_a_socket(folder, HashKind::Sha256, "tcp://127.0.0.1:0").await
}

async fn over_a_socket(folder: tempfile::TempDir, hash: HashKind, at: &str) -> Fixture {
    let path = Local::init(&folder.path().join("store"), hash).unwrap();
    let engine = Git::open(&path, Durability::None, false).unwrap();
    let server = Served::new(Arc::new(engine));
    let url = server.listen(at).await;
    let remote = Remote::connect(&url, remote::Options::default());
    Fixture {
        client: Arc::new(remote.await.unwrap()),
        _server: Some(server),
        _folder: Some(folder),
    }
}

pub async fn git() -> Fixture {
    repository(HashKind::Sha1, Durability::Strict)
}

pub async fn git_sha256() -> Fixture {
    repository(HashKind::Sha256, Durability::None)
}

fn repository(hash: HashKind, durability: Durability) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = Local::init(&folder.path().join("store"), hash).unwrap();
    let options = Options {
        durability,
        discover: false,
        // Each way with one of the two.
        alone: hash == HashKind::Sha256,
    };
    Fixture {
        client: Arc::new(Local::open(&path, options).unwrap()),
        _server: None,
        _folder: Some(folder),
    }
}

/// Runs each case against each implementation.
#[macro_export]
macro_rules! every_client {
    ($($case:ident)*) => {
        $crate::every_client!(@ memory $($case)*);
        $crate::every_client!(@ git $($case)*);
        $crate::every_client!(@ git_sha256 $($case)*);
        $crate::every_client!(@ remote_memory $($case)*);
        $crate::every_client!(@ remote_unix $($case)*);
        $crate::every_client!(@ remote_tcp $($case)*);
    };
    (@ $fixture:ident $($case:ident)*) => {
        mod $fixture {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let fixture = $crate::client_contract::$fixture().await;
                    super::$case(&*fixture.client).await;
                    let faults = fixture.client.fsck(std::sync::Arc::new(())).await.unwrap();
                    assert!(faults.is_empty(), "{faults:?}");
                }
            )*
        }
    };
}

pub fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

pub fn branch(name: &str) -> BranchName {
    BranchName::new(name).unwrap()
}

/// An edit that owns what it carries.
#[derive(Clone)]
pub enum Do {
    Write(&'static str, Vec<u8>),
    Exec(&'static str, &'static str),
    Append(&'static str, &'static str),
    Link(&'static str, &'static str),
    Mkdir(&'static str),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    Copy(&'static str, &'static str),
    Chmod(&'static str, bool),
    Truncate(&'static str, u64),
    Set(&'static str, Entry),
}

pub fn write(at: &'static str, text: &str) -> Do {
    Do::Write(at, text.into())
}

/// Reads what is at hand of a file while nothing else happens: this thread
/// drives all there is, and waits for nothing but this.
pub fn at_hand(mut reader: Box<dyn Read + Send>) -> (Vec<u8>, Box<dyn Read + Send>) {
    let (give, given) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut start = vec![0; AT_HAND];
        reader.read_exact(&mut start).unwrap();
        // Whoever waited long enough is gone.
        let _ = give.send((start, reader));
    });
    let long = Duration::from_secs(20);
    given.recv_timeout(long).expect("it is at hand")
}

/// Makes a source of edits.
pub fn edits(list: Vec<Do>) -> Edits {
    Edits::new(move |sink| {
        for item in &list {
            sink.edit(match item {
                Do::Write(at, data) => Edit::Write {
                    path: path(at),
                    kind: FileKind::Keep,
                    content: Content::Bytes(data),
                },
                Do::Exec(at, text) => Edit::Write {
                    path: path(at),
                    kind: FileKind::Exec,
                    content: Content::Bytes(text.as_bytes()),
                },
                Do::Append(at, text) => Edit::Append {
                    path: path(at),
                    content: Content::Bytes(text.as_bytes()),
                },
                Do::Link(at, target) => Edit::Link {
                    path: path(at),
                    target: target.as_bytes(),
                },
                Do::Mkdir(at) => Edit::Mkdir { path: path(at) },
                Do::Remove(at) => Edit::Remove { path: path(at) },
                Do::Rename(from, to) => Edit::Rename {
                    from: path(from),
                    to: path(to),
                },
                Do::Copy(from, to) => Edit::Copy {
                    from: path(from),
                    to: path(to),
                },
                Do::Chmod(at, exec) => Edit::Chmod {
                    path: path(at),
                    exec: *exec,
                },
                Do::Truncate(at, size) => Edit::Truncate {
                    path: path(at),
                    size: *size,
                },
                Do::Set(at, entry) => Edit::Set {
                    path: path(at),
                    entry: *entry,
                },
            })?;
        }
        Ok(())
    })
}

/// One commit on a branch.
pub async fn commit(client: &dyn Client, on: &str, list: Vec<Do>) -> ObjectId {
    let options = CommitOptions {
        message: Some(b"change".to_vec()),
        ..CommitOptions::default()
    };
    client
        .edit(&branch(on), edits(list), options)
        .await
        .unwrap()
}

pub async fn begin(client: &dyn Client, on: &str) -> TransactionId {
    let begun = client.begin(&branch(on), None, None, None).await;
    begun.unwrap().id
}

pub async fn tx(client: &dyn Client, id: &TransactionId, list: Vec<Do>) -> Transaction {
    client.tx_edit(id, edits(list)).await.unwrap()
}

pub async fn read(client: &dyn Client, at: &At, from: &str) -> String {
    let mut reader = client.open(at, &path(from)).await.unwrap();
    tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
    .await
    .unwrap()
}

/// The names in a folder.
pub async fn names(client: &dyn Client, at: &At, from: &str) -> Vec<String> {
    let items = client.list(at, &path(from), false).await.unwrap();
    items.iter().map(|item| item.path.to_string()).collect()
}

pub async fn kind(client: &dyn Client, at: &At, from: &str) -> Option<EntryKind> {
    let stat = client.stat(at, &path(from)).await.unwrap();
    stat.map(|stat| stat.entry.mode.kind())
}

pub async fn head(client: &dyn Client, on: &str) -> ObjectId {
    client.head(&branch(on)).await.unwrap().unwrap()
}

/// Takes the next record of a stream, or fails after ten seconds.
pub async fn next<T>(records: &mut Records<T>) -> T {
    let next = std::future::poll_fn(|context| records.as_mut().poll_next(context));
    tokio::time::timeout(Duration::from_secs(10), next)
        .await
        .expect("a record within ten seconds")
        .expect("the stream goes on")
        .unwrap()
}

/// Takes all records of a stream that ends.
pub async fn all<T>(mut records: Records<T>) -> Vec<T> {
    let mut taken = Vec::new();
    while let Some(record) =
        std::future::poll_fn(|context| records.as_mut().poll_next(context)).await
    {
        taken.push(record.unwrap());
    }
    taken
}

/// The differences as dk prints them.
pub async fn diff(client: &dyn Client, from: &At, to: &At) -> Vec<String> {
    let changes = client.diff(from, to, &TreePath::root()).await.unwrap();
    changes.iter().map(ToString::to_string).collect()
}

pub fn conflicts(transaction: &Transaction) -> Vec<String> {
    let paths = transaction.conflicts.iter().map(|c| c.path.to_string());
    paths.collect()
}
