//! The file tree, walked with no wire.
//!
//! `ancestor` has the cases of the ancestor's own tests under their names,
//! `archetypes` the stock files, the others a part of the tree each. The
//! listing is compared with `tests/data/tree.txt`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datakit::model::{HashKind, Kind};
use datakit::namespace::node::{
    Attr, Call, Create, Error, Handle, Node, Open, Principal, Result, Session, Set, Shape, Tree,
};
use datakit::namespace::{Namespace, Options};
use datakit::store::Store;
use datakit::store::memory::Memory;

mod ancestor;
mod archetypes;
mod asking;
mod holding;
mod listing;
mod reading;
mod writing;

/// One connection to a tree.
pub struct Walker {
    pub tree: Arc<Namespace>,
    pub store: Arc<Store>,
    pub session: Arc<dyn Session>,
    pub call: Call,
}

pub fn call() -> Call {
    Call::new(Arc::new(Principal {
        uname: b"tester".to_vec(),
        uid: None,
        peer: "memory".into(),
    }))
}

/// A connection to an empty store in memory.
pub fn memory() -> Walker {
    over(Arc::new(Store::new(Arc::new(Memory::new(HashKind::Sha1)))))
}

/// A connection to a store.
pub fn over(store: Arc<Store>) -> Walker {
    let tree = Arc::new(Namespace::new(store.clone(), Options::default()));
    let session = tree.session("test");
    Walker {
        tree,
        store,
        session,
        call: call(),
    }
}

/// Waits for something that must come soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), what).await {
        Ok(value) => value,
        Err(_) => panic!("it did not come"),
    }
}

/// Tells that something does not come while everything else is idle.
pub async fn silent<T>(what: impl Future<Output = T>) {
    let waited = tokio::time::timeout(Duration::from_millis(150), what).await;
    assert!(waited.is_err(), "it came");
}

pub const FILE: Create = Create::File {
    exec: false,
    exclusive: false,
};

pub const EXEC: Create = Create::File {
    exec: true,
    exclusive: false,
};

pub const BOTH: Open = Open {
    read: true,
    write: true,
    truncate: false,
    append: false,
};

/// What an old client is told.
pub fn said(error: Error) -> String {
    error.text.unwrap_or(error.failure.message)
}

impl Walker {
    /// Another connection to the same tree.
    pub fn another(&self) -> Self {
        Self {
            tree: self.tree.clone(),
            store: self.store.clone(),
            session: self.tree.session("another"),
            call: call(),
        }
    }

    pub async fn walk(&self, path: &str) -> Result<Arc<dyn Node>> {
        let mut node = self.session.attach(&self.call, b"").await?;
        for step in path.split('/').filter(|step| !step.is_empty()) {
            node = match step {
                ".." => node.parent().unwrap_or(node),
                name => node.lookup(&self.call, name.as_bytes()).await?,
            };
        }
        Ok(node)
    }

    async fn parent<'p>(&self, path: &'p str) -> Result<(Arc<dyn Node>, &'p str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.walk(folder).await?, name))
    }

    pub async fn open(&self, path: &str) -> Result<Arc<dyn Handle>> {
        let node = self.walk(path).await?;
        node.open(&self.call, BOTH).await
    }

    pub async fn attr(&self, path: &str) -> Result<Attr> {
        self.walk(path).await?.attr(&self.call).await
    }

    pub async fn ls(&self, path: &str) -> Result<Vec<String>> {
        let node = self.walk(path).await?;
        let handle = node.open(&self.call, Open::default()).await?;
        let listing = handle.list(&self.call).await?;
        let name = |index| String::from_utf8_lossy(&listing.entry(index).0).into_owned();
        Ok((0..listing.len()).map(name).collect())
    }

    /// Reads until nothing comes.
    pub async fn cat(&self, path: &str) -> Result<String> {
        let handle = self.open(path).await?;
        let mut text = Vec::new();
        loop {
            let offset = text.len() as u64;
            let data = soon(handle.read(&self.call, offset, 8192)).await?;
            if data.is_empty() {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            text.extend_from_slice(&data);
        }
    }

    /// Writes at the beginning of a file that is there.
    pub async fn write(&self, path: &str, text: impl Into<Bytes>) -> Result<()> {
        let handle = self.open(path).await?;
        handle.write(&self.call, 0, text.into()).await?;
        handle.close(&self.call).await
    }

    /// Empties a file and writes a line, as the shell does.
    pub async fn echo(&self, path: &str, line: &str) -> Result<()> {
        self.resize(path, 0).await?;
        self.write(path, format!("{line}\n")).await
    }

    pub async fn resize(&self, path: &str, size: u64) -> Result<()> {
        let set = Set {
            size: Some(size),
            kind: None,
        };
        self.walk(path).await?.set(&self.call, set).await
    }

    pub async fn chmod(&self, path: &str, kind: Create) -> Result<()> {
        let set = Set {
            size: None,
            kind: Some(kind),
        };
        self.walk(path).await?.set(&self.call, set).await
    }

    pub async fn create(&self, path: &str, what: Create) -> Result<Arc<dyn Node>> {
        let (folder, name) = self.parent(path).await?;
        folder.create(&self.call, name.as_bytes(), what).await
    }

    pub async fn mkdir(&self, path: &str) -> Result<()> {
        self.create(path, Create::Dir).await.map(|_| ())
    }

    /// Creates or empties a file, and writes it.
    pub async fn put(&self, path: &str, text: impl Into<Bytes>) -> Result<()> {
        let node = self.create(path, FILE).await?;
        let handle = node.open(&self.call, BOTH).await?;
        handle.write(&self.call, 0, text.into()).await?;
        handle.close(&self.call).await
    }

    pub async fn link(&self, path: &str, target: &str) -> Result<()> {
        let target = Some(target.into());
        self.create(path, Create::Link { target }).await.map(|_| ())
    }

    pub async fn rm(&self, path: &str) -> Result<()> {
        self.walk(path).await?.remove(&self.call, true).await
    }

    /// Moves what is at `from` to a name in the same directory.
    pub async fn rename(&self, from: &str, name: &str) -> Result<()> {
        let node = self.walk(from).await?;
        let folder = node.parent().expect("it is in a directory");
        node.rename(&self.call, &folder, name.as_bytes()).await
    }

    /// The head of a branch; empty where it has none.
    pub async fn head(&self, branch: &str) -> String {
        let text = self.cat(&format!("branch/{branch}/head")).await.unwrap();
        text.trim().to_owned()
    }

    /// Begins a transaction and returns its path.
    pub async fn begin(&self, branch: &str, name: &str) -> String {
        self.mkdir(&format!("branch/{branch}")).await.unwrap();
        let path = format!("branch/{branch}/transactions/{name}");
        self.mkdir(&path).await.unwrap();
        path
    }

    pub async fn commit(&self, transaction: &str) -> Result<()> {
        self.write(&format!("{transaction}/ctl"), "commit").await
    }

    /// Commits files, one transaction for all, and returns the head.
    pub async fn store(&self, branch: &str, files: &[(&str, &str)], message: &str) -> String {
        let transaction = self.begin(branch, "store").await;
        for (path, text) in files {
            let mut folder = format!("{transaction}/rw");
            let steps: Vec<&str> = path.split('/').collect();
            for step in &steps[..steps.len() - 1] {
                folder = format!("{folder}/{step}");
                let _ = self.mkdir(&folder).await;
            }
            let path = format!("{transaction}/rw/{path}");
            self.put(&path, text.to_string()).await.unwrap();
        }
        self.write(&format!("{transaction}/msg"), message.to_owned())
            .await
            .unwrap();
        self.commit(&transaction).await.unwrap();
        self.head(branch).await
    }
}

/// Reads a stream with one handle, as an old client does.
pub struct Reader {
    handle: Arc<dyn Handle>,
    call: Call,
    at: u64,
}

impl Reader {
    pub async fn new(walker: &Walker, path: &str) -> Self {
        Self {
            handle: walker.open(path).await.unwrap(),
            call: call(),
            at: 0,
        }
    }

    pub async fn raw(&mut self, count: u32) -> Result<String> {
        let data = self.handle.read(&self.call, self.at, count).await?;
        self.at += data.len() as u64;
        Ok(String::from_utf8_lossy(&data).into_owned())
    }

    /// The next result, and the empty read behind it.
    pub async fn next(&mut self) -> String {
        let result = soon(self.raw(4096)).await.unwrap();
        assert_eq!(soon(self.raw(4096)).await.unwrap(), "", "the marker");
        result
    }

    pub async fn silent(&mut self) {
        let (at, handle) = (self.at, self.handle.clone());
        silent(handle.read(&self.call, at, 4096)).await;
    }
}

pub fn is_dir(node: &Arc<dyn Node>) -> bool {
    node.id().shape == Shape::Dir
}

pub fn refused<T>(result: Result<T>, text: &str) {
    match result {
        Ok(_) => panic!("it should fail with {text:?}"),
        Err(error) => assert_eq!(said(error), text),
    }
}

pub fn fails<T>(result: Result<T>, kind: Kind) {
    match result {
        Ok(_) => panic!("it should fail with {kind:?}"),
        Err(error) => assert_eq!(error.kind(), kind, "{error:?}"),
    }
}
