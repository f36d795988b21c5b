//! `/remotes`: other repositories.
//!
//! They are those of the repository's own Git configuration, so all
//! connections see the same ones. A store that is no repository on disk keeps
//! them for each connection; it cannot fetch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::model::request::Progress;
use crate::model::{Kind, ObjectId};
use crate::store::{self, Store};

use super::entry::{Dir, Folder, key};
use super::files::{Command, Memory, Text, Turn, lock};
use super::node::{Call, Create, Error, Node, Result, Shape};
use super::root::named;
use super::stream::{Source, Stream};
use super::{Connection, World, failure};

/// Remotes that somebody has looked at, or made and not yet given a URL. Making
/// one and looking one up take turns.
#[derive(Default)]
pub struct Remotes {
    known: Mutex<BTreeMap<Vec<u8>, Arc<Remote>>>,
    turn: Turn<()>,
}

/// One of them.
pub struct Remote {
    world: Arc<World>,
    name: Mutex<Vec<u8>>,
    /// What was written and is not in the configuration: no URL, or of a store
    /// that has none.
    written: Mutex<Option<Vec<u8>>>,
    head: watch::Sender<Option<ObjectId>>,
    files: OnceLock<Files>,
}

struct Files {
    url: Arc<Memory>,
    fetch: Arc<Command>,
    push: Arc<Command>,
}

impl Remote {
    fn new(world: &Arc<World>, name: &[u8], written: Option<Vec<u8>>) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            name: Mutex::new(name.to_vec()),
            written: Mutex::new(written),
            head: watch::Sender::new(None),
            files: OnceLock::new(),
        })
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&lock(&self.name)).into_owned()
    }

    /// Returns the URL as it is now, without the newline at its end.
    async fn url(&self) -> Result<Vec<u8>> {
        if let Some(written) = lock(&self.written).clone() {
            return Ok(written);
        }
        let name = self.name();
        let find = move |store: &Arc<Store>| {
            let remotes = store.repository()?.remotes()?;
            let found = remotes.into_iter().find(|remote| remote.name == name);
            Ok(found.map_or_else(Vec::new, |remote| remote.url.into_bytes()))
        };
        self.world.run(find).await
    }

    fn files(self: &Arc<Self>) -> &Files {
        self.files.get_or_init(|| Files {
            url: Arc::new(Memory::new(Arc::new(Url(Arc::downgrade(self))))),
            fetch: Command::of(self, |remote, call, branch| {
                Box::pin(async move { remote.fetch(&call, words(&branch)).await })
            }),
            push: Command::of(self, |remote, call, refspecs| {
                Box::pin(async move { remote.push(&call, words(&refspecs)).await })
            }),
        })
    }

    /// Brings a branch's objects here and tells its commit in `head`. No ref of
    /// this store moves.
    async fn fetch(&self, call: &Call, branch: String) -> Result<Vec<u8>> {
        let refused = |text: String| Error::text(Kind::Io, text);
        let url = String::from_utf8_lossy(&self.url().await?).into_owned();
        if url.is_empty() {
            return Err(refused("error: remote url is not defined".into()));
        }
        // A branch behind the URL is the one.
        let (url, branch) = match url.rsplit_once('#') {
            Some((url, branch)) if !url.is_empty() && !branch.is_empty() => {
                (url.to_owned(), branch.to_owned())
            }
            _ => (url, branch),
        };
        let wanted = match branch.starts_with("refs/") {
            true => branch,
            false => format!("refs/heads/{branch}"),
        };
        let shown = url.clone();
        let fetch = move |store: &Arc<Store>| {
            let refspecs = [wanted.clone()];
            let found = store.repository()?.fetch(&url, &refspecs, &())?;
            let one = found
                .into_iter()
                .find(|one| one.remote == wanted.as_bytes());
            Ok(one.map(|one| one.id))
        };
        match self.world.change(call, fetch).await {
            Ok(Some(id)) => {
                self.head.send_replace(Some(id));
                Ok(Vec::new())
            }
            Ok(None) => Err(refused("error: no head to fetch".into())),
            Err(error) if error.kind() == Kind::NotFound => {
                Err(refused("error: no head to fetch".into()))
            }
            Err(error) => Err(Error {
                text: Some(format!("error: cannot fetch {shown}")),
                failure: error.failure,
            }),
        }
    }

    /// Pushes branches; the result is what the other side said.
    async fn push(&self, call: &Call, refspecs: String) -> Result<Vec<u8>> {
        let url = String::from_utf8_lossy(&self.url().await?).into_owned();
        if url.is_empty() {
            return Err(Error::text(Kind::Io, "error: remote url is not defined"));
        }
        // By its name Git finds what else is configured for it.
        let name = match lock(&self.written).is_some() {
            true => url,
            false => self.name(),
        };
        let push = move |store: &Arc<Store>| {
            let refspecs: Vec<String> = refspecs.split_whitespace().map(String::from).collect();
            let said = Said::default();
            store.repository()?.push(&name, &refspecs, &said)?;
            Ok(lock(&said.0).clone().into_bytes())
        };
        self.world.change(call, push).await
    }
}

fn words(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Keeps the lines that a push says, up to a bound.
#[derive(Default)]
struct Said(Mutex<String>);

impl Progress for Said {
    fn begin(&self, _: &str, _: Option<u64>, _: bool) {}

    fn advance(&self, _: u64) {}

    fn line(&self, text: &str) {
        const MOST: usize = 64 << 10;
        let mut said = lock(&self.0);
        if said.len() + text.len() < MOST {
            said.push_str(text);
            said.push('\n');
        }
    }
}

/// `url`: written to the configuration as soon as there is something to write.
struct Url(std::sync::Weak<Remote>);

#[async_trait::async_trait]
impl Text for Url {
    async fn load(&self, _: &Call) -> Result<Vec<u8>> {
        let remote = self.0.upgrade();
        let remote = remote.ok_or_else(|| failure::no_entry("the remote"))?;
        remote.url().await
    }

    async fn save(&self, call: &Call, text: Vec<u8>) -> Result<()> {
        let remote = self.0.upgrade();
        let remote = remote.ok_or_else(|| failure::no_entry("the remote"))?;
        let text = match text.strip_suffix(b"\n") {
            Some(line) => line.to_vec(),
            None => text,
        };
        if text.is_empty() || remote.world.store.engine.repository().is_none() {
            *lock(&remote.written) = Some(text);
            return Ok(());
        }
        let url = String::from_utf8(text)
            .map_err(|_| Error::new(Kind::Invalid, "the URL of a remote is UTF-8"))?;
        let name = remote.name();
        let write = move |store: &Arc<Store>| {
            let repository = store.repository()?;
            let known = repository.remotes()?.iter().any(|known| known.name == name);
            match known {
                true => repository.set_config(&format!("remote.{name}.url"), &url)?,
                false => repository.add_remote(&name, &url)?,
            }
            Ok(())
        };
        remote.world.change(call, write).await?;
        *lock(&remote.written) = None;
        Ok(())
    }
}

/// Tells what was fetched, when that is another commit.
struct Fetched {
    head: watch::Receiver<Option<ObjectId>>,
    last: Option<ObjectId>,
}

#[async_trait::async_trait]
impl Source for Fetched {
    async fn next(&mut self) -> Result<Bytes> {
        let last = self.last;
        let another = |head: &Option<ObjectId>| head.is_some() && *head != last;
        let found = self.head.wait_for(another).await;
        let head = match found {
            Ok(head) => *head,
            Err(_) => return Err(failure::no_entry("the remote")),
        };
        self.last = head;
        Ok(super::live::head_line(head).into())
    }
}

/// `/remotes`.
pub struct All(pub Arc<Connection>);

impl All {
    fn known(&self) -> &Remotes {
        match self.0.world.store.engine.repository() {
            Some(_) => &self.0.world.remotes,
            None => &self.0.remotes,
        }
    }

    /// Names in the configuration.
    async fn configured(&self) -> Result<Vec<Vec<u8>>> {
        if self.0.world.store.engine.repository().is_none() {
            return Ok(Vec::new());
        }
        let list = |store: &Arc<Store>| {
            let remotes = store.repository()?.remotes()?;
            Ok(remotes.into_iter().map(|remote| remote.name.into_bytes()))
        };
        Ok(self.0.world.run(list).await?.collect())
    }

    fn entry(&self, at: &Dir, remote: Arc<Remote>) -> Arc<dyn Node> {
        let name = lock(&remote.name).clone();
        let connection = self.0.clone();
        let all = at.key();
        at.dir(
            &name,
            RemoteDir {
                connection,
                remote,
                all,
            },
        )
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
        let mut names = self.configured().await?;
        let known = lock(&self.known().known);
        let written = known
            .iter()
            .filter(|(_, remote)| lock(&remote.written).is_some());
        names.extend(written.map(|(name, _)| name.clone()));
        drop(known);
        names.sort();
        names.dedup();
        Ok(names.into_iter().map(|name| (name, Shape::Dir)).collect())
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let _turn = self.known().turn.take().await;
        let configured = self.configured().await?.iter().any(|known| known == name);
        let mut known = lock(&self.known().known);
        let remote = match known.get(name) {
            Some(remote) if configured || lock(&remote.written).is_some() => remote.clone(),
            _ if configured => {
                let remote = Remote::new(&self.0.world, name, None);
                known.insert(name.to_vec(), remote.clone());
                remote
            }
            _ => {
                known.remove(name);
                let shown = crate::model::text::quote(name);
                return Err(failure::no_entry(format!("remote {shown}")));
            }
        };
        drop(known);
        Ok(self.entry(at, remote))
    }

    async fn create(&self, at: &Dir, _: &Call, name: &[u8], what: Create) -> Result<Arc<dyn Node>> {
        if what != Create::Dir {
            return Err(failure::only_directories());
        }
        self.0.world.writable()?;
        let shown = crate::model::text::quote(name).to_string();
        let legal = !name.starts_with(b"-") && !name.contains(&b'/') && {
            crate::model::BranchName::new(name).is_ok() && std::str::from_utf8(name).is_ok()
        };
        if !legal {
            let message = format!("{shown} is not a legal name for a remote");
            return Err(Error::new(Kind::Invalid, message));
        }
        let taken = || failure::exists(format!("remote {shown}"));
        let _turn = self.known().turn.take().await;
        if self.configured().await?.iter().any(|known| known == name) {
            return Err(taken());
        }
        let mut known = lock(&self.known().known);
        if known
            .get(name)
            .is_some_and(|remote| lock(&remote.written).is_some())
        {
            return Err(taken());
        }
        let remote = Remote::new(&self.0.world, name, Some(Vec::new()));
        known.insert(name.to_vec(), remote.clone());
        drop(known);
        Ok(self.entry(at, remote))
    }

    async fn remove(&self, _: &Call, _: bool) -> Result<()> {
        Err(failure::only_directories())
    }
}

/// `/remotes/N`.
struct RemoteDir {
    connection: Arc<Connection>,
    remote: Arc<Remote>,
    /// The key of `/remotes`.
    all: u64,
}

impl RemoteDir {
    fn known(&self) -> &Remotes {
        match self.connection.world.store.engine.repository() {
            Some(_) => &self.connection.world.remotes,
            None => &self.connection.remotes,
        }
    }
}

#[async_trait::async_trait]
impl Folder for RemoteDir {
    fn name(&self) -> Option<Vec<u8>> {
        Some(lock(&self.remote.name).clone())
    }

    fn key(&self) -> Option<u64> {
        Some(key(self.all, &lock(&self.remote.name)))
    }

    fn mtime(&self) -> i64 {
        self.connection.world.started
    }

    async fn list(&self, _: &Call) -> Result<Vec<(Vec<u8>, Shape)>> {
        Ok(named(&[
            (b"url", Shape::File),
            (b"head", Shape::File),
            (b"fetch", Shape::File),
            (b"push", Shape::File),
        ]))
    }

    async fn lookup(&self, at: &Dir, _: &Call, name: &[u8]) -> Result<Arc<dyn Node>> {
        let files = self.remote.files();
        Ok(match name {
            b"url" => at.shared_file(name, files.url.clone()),
            b"fetch" => at.shared_file(name, files.fetch.clone()),
            b"push" => at.shared_file(name, files.push.clone()),
            b"head" => {
                let remote = self.remote.clone();
                let begin = move |_: &Call| -> BoxFuture<'static, Result<Box<dyn Source>>> {
                    let head = remote.head.subscribe();
                    let last = None;
                    Box::pin(async move { Ok(Box::new(Fetched { head, last }) as Box<dyn Source>) })
                };
                at.file(name, Stream::new(&self.connection.world.streams, begin))
            }
            _ => return Err(failure::no_name(name)),
        })
    }

    async fn rename(&self, call: &Call, into: &Arc<dyn Node>, name: &[u8]) -> Result<()> {
        if into.id().path != self.all {
            return Err(failure::read_only_dir());
        }
        let old = self.remote.name();
        let new = std::str::from_utf8(name)
            .map_err(|_| Error::new(Kind::Invalid, "the name of a remote is UTF-8"))?
            .to_owned();
        if old == new {
            return Ok(());
        }
        let exists = |name: &str| failure::exists(format!("remote {name}"));
        if lock(&self.known().known)
            .get(name)
            .is_some_and(|remote| lock(&remote.written).is_some())
        {
            return Err(exists(&new));
        }
        if lock(&self.remote.written).is_none() {
            let url = self.remote.url().await?;
            let url = String::from_utf8_lossy(&url).into_owned();
            let (from, to) = (old.clone(), new.clone());
            let rename = move |store: &Arc<Store>| {
                let repository = store.repository()?;
                repository.add_remote(&to, &url)?;
                repository.remove_remote(&from)?;
                Ok(())
            };
            self.connection.world.change(call, rename).await?;
        }
        let mut known = lock(&self.known().known);
        known.remove(old.as_bytes());
        *lock(&self.remote.name) = name.to_vec();
        known.insert(name.to_vec(), self.remote.clone());
        Ok(())
    }

    async fn remove(&self, call: &Call, _: bool) -> Result<()> {
        self.connection.world.writable()?;
        let name = self.remote.name();
        let configured = self.connection.world.store.engine.repository().is_some();
        if configured {
            let gone = name.clone();
            let remove = move |store: &Arc<Store>| match store.repository()?.remove_remote(&gone) {
                Ok(()) | Err(store::Error::NotFound(_)) => Ok(()),
                Err(error) => Err(error.into()),
            };
            self.connection.world.change(call, remove).await?;
        }
        lock(&self.known().known).remove(name.as_bytes());
        Ok(())
    }
}
