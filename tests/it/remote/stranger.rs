//! Our client with somebody else's server: one built on the crate rs9p, which
//! speaks 9P2000.L, answers with numbers, and in no order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use datakit::client::remote::{Options, Remote};
use datakit::client::*;
use datakit::model::text::*;
use datakit::model::*;
use rs9p::error::Error as Refused;
use rs9p::srv::{FId, Filesystem, srv_async_unix};
use rs9p::{Data, FCall, GetAttrMask, QId, QIdType, errno};

use crate::client_contract::{all, branch, path, read};

/// Files by their whole paths.
#[derive(Clone)]
struct Files(Arc<BTreeMap<Vec<u8>, Vec<u8>>>);

/// Where a fid is.
#[derive(Default)]
struct Place(Mutex<Vec<u8>>);

impl Files {
    fn at(&self, path: &[u8]) -> Result<&[u8], Refused> {
        let file = self.0.get(path).map(Vec::as_slice);
        file.ok_or(Refused::No(errno::EISDIR))
    }

    fn qid(&self, path: &[u8]) -> Option<QId> {
        let below = [path, b"/"].concat();
        let typ = if self.0.contains_key(path) {
            QIdType::FILE
        } else if self.0.keys().any(|key| key.starts_with(&below)) {
            QIdType::DIR
        } else {
            return None;
        };
        Some(QId {
            typ,
            version: 0,
            path: path.len() as u64,
        })
    }
}

#[async_trait::async_trait]
impl Filesystem for Files {
    type FId = Place;

    async fn rattach(
        &self,
        _: &FId<Place>,
        _: Option<&FId<Place>>,
        _: &str,
        _: &str,
        _: u32,
    ) -> rs9p::Result<FCall> {
        let qid = self.qid(b"").unwrap();
        Ok(FCall::RAttach { qid })
    }

    async fn rwalk(
        &self,
        from: &FId<Place>,
        to: &FId<Place>,
        names: &[String],
    ) -> rs9p::Result<FCall> {
        let mut at = from.aux.0.lock().unwrap().clone();
        let mut wqids = Vec::new();
        for name in names {
            at.push(b'/');
            at.extend_from_slice(name.as_bytes());
            wqids.push(self.qid(&at).ok_or(Refused::No(errno::ENOENT))?);
        }
        *to.aux.0.lock().unwrap() = at;
        Ok(FCall::RWalk { wqids })
    }

    async fn rlopen(&self, fid: &FId<Place>, _: u32) -> rs9p::Result<FCall> {
        let qid = self.qid(&fid.aux.0.lock().unwrap()).unwrap();
        Ok(FCall::RlOpen { qid, iounit: 0 })
    }

    async fn rread(&self, fid: &FId<Place>, offset: u64, count: u32) -> rs9p::Result<FCall> {
        let at = fid.aux.0.lock().unwrap().clone();
        let rest = self.at(&at)?.get(offset as usize..).unwrap_or_default();
        // Never as much as was asked for.
        let data = rest[..rest.len().min(count as usize).min(7)].to_vec();
        Ok(FCall::RRead { data: Data(data) })
    }

    async fn rgetattr(&self, fid: &FId<Place>, _: GetAttrMask) -> rs9p::Result<FCall> {
        let at = fid.aux.0.lock().unwrap().clone();
        let never = rs9p::Time { sec: 0, nsec: 0 };
        let stat = rs9p::Stat {
            mode: 0o100_444,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            size: self.at(&at).map_or(0, |file| file.len() as u64),
            blksize: 4096,
            blocks: 1,
            atime: never,
            mtime: never,
            ctime: never,
        };
        let qid = self.qid(&at).unwrap();
        let valid = GetAttrMask::BASIC;
        Ok(FCall::RGetAttr { valid, qid, stat })
    }

    async fn rclunk(&self, _: &FId<Place>) -> rs9p::Result<FCall> {
        Ok(FCall::RClunk)
    }
}

fn id(n: u8) -> ObjectId {
    ObjectId::from_bytes(&[n; 20]).unwrap()
}

/// What a server shows of one commit with one file.
fn files(content: &[u8]) -> Files {
    let (at, entry) = (At::Commit(id(1)), (Mode::FILE, id(3)));
    let ls = |path: &str, shape| LsQuery {
        at: at.clone(),
        path: crate::client_contract::path(path),
        shape,
        sizes: shape == LsShape::Leaves,
    };
    let item = Item {
        path: path("file"),
        entry: Entry {
            mode: entry.0,
            id: entry.1,
        },
        size: Some(content.len() as u64),
    };
    let mut list = Vec::new();
    write_item(&mut list, &item);
    let mut refs = Vec::new();
    let head = Branch {
        name: branch("master"),
        head: id(1),
    };
    write_ref(&mut refs, &head, false);
    let commit = Commit {
        id: id(1),
        tree: id(2),
        parents: vec![],
        author: read_signature(b"A <a> 1 +0000"),
        committer: read_signature(b"A <a> 1 +0000"),
        message: b"m".to_vec(),
    };
    let mut record = Vec::new();
    write_commit_record(&mut record, &commit);
    let log = format!("/log/{}", id(1)).into_bytes();
    let ls_of = |path, shape| [b"/ls/", &ls(path, shape).write()[..]].concat();
    Files(Arc::new(BTreeMap::from([
        (b"/refs".to_vec(), refs),
        (
            b"/branch/master/head".to_vec(),
            format!("{}\n", id(1)).into(),
        ),
        (b"/resolve/master".to_vec(), format!("{}\n", id(1)).into()),
        (ls_of("file", LsShape::Own), list.clone()),
        (ls_of("", LsShape::Leaves), list),
        (format!("/trees/F-{}", id(3)).into(), content.to_vec()),
        (log, record),
    ])))
}

#[tokio::test]
async fn the_client_reads_from_a_server_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let content: Vec<u8> = (0..500_u32).map(|n| n as u8).collect();
    let server = tokio::spawn(srv_async_unix(files(&content), socket.clone()));
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    let url = format!("unix://{}", socket.display());
    let remote = Remote::connect(&url, Options::default()).await.unwrap();
    let client: &dyn Client = &remote;

    let info = client.info().await.unwrap();
    assert_eq!((info.url, info.id_digits), (url, 40));
    assert_eq!(client.branches().await.unwrap()[0].name, branch("master"));
    assert_eq!(client.head(&branch("master")).await.unwrap(), Some(id(1)));
    assert_eq!(client.head(&branch("other")).await.unwrap(), None);
    let rev = Rev::new("master").unwrap();
    assert_eq!(client.resolve(&rev).await.unwrap(), id(1));
    let at = At::Commit(id(1));
    let text = read(client, &at, "file").await;
    assert_eq!(text, String::from_utf8_lossy(&content));
    let items = all(client.walk(&at, &TreePath::root(), true)).await;
    assert_eq!(items[0].path, path("file"));
    let blobs = client.open_blobs(&[id(3), id(3)]).await.unwrap();
    assert_eq!(blobs.len(), 2);
    let from = vec![id(1)];
    let query = LogQuery {
        from,
        ..LogQuery::default()
    };
    assert_eq!(all(client.log(query)).await[0].message, b"m");

    // A number is all that is known of a failure.
    let none = Rev::new("none").unwrap();
    let error = client.resolve(&none).await.unwrap_err();
    assert_eq!(error.to_string(), "resolve/none does not exist");
    assert_eq!(error.kind(), Kind::NotFound);
    let options = CommitOptions::default();
    let edits = Edits::new(|sink| sink.edit(Edit::Mkdir { path: path("d") }));
    let error = client.edit(&branch("master"), edits, options).await;
    assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
    server.abort();
}
