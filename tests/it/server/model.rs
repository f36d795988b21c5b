//! What a server of the toy must answer, worked out without one: fids, nodes
//! and files in plain tables.

use std::collections::BTreeMap;

use datakit::ninep::errno::*;
use datakit::ninep::message::{Dialect, Request};
use rs9p::NOFID;

pub type Node = usize;

mod answer;

const ROOT: Node = 0;

/// What is to be answered, as far as it is foretold.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// Number and, for the dialects that have texts, the text.
    Error(u32, String),
    /// Something with these qids.
    Qids(Vec<Node>),
    Content(Vec<u8>),
    /// These names, in order, or the first of them and no less than fit.
    Names(Vec<Vec<u8>>),
    /// Length and mode.
    Attr(u64, u32),
    /// Any answer to the point.
    Done,
}

#[derive(Clone, Debug)]
enum Body {
    Dir(BTreeMap<Vec<u8>, Node>),
    File(Vec<u8>, bool),
    Link(Vec<u8>),
    Stream,
    Command,
}

#[derive(Clone, Debug)]
struct State {
    name: Vec<u8>,
    above: Node,
    body: Body,
}

#[derive(Clone, Debug)]
struct Fid {
    node: Node,
    root: Node,
    opened: Option<Opened>,
}

#[derive(Clone, Debug)]
enum Opened {
    File {
        append: bool,
        /// Of a stream: the last that was read.
        last: Option<u64>,
    },
    Dir {
        /// As of the open, until it was read.
        names: Option<Vec<Vec<u8>>>,
    },
    Attributes,
}

pub struct Model {
    pub dialect: Dialect,
    nodes: Vec<State>,
    fids: BTreeMap<u32, Fid>,
    /// What the stream says now.
    said: u64,
    /// Reads of the stream that wait, by fid, the first first.
    waiting: BTreeMap<u32, Vec<u16>>,
}

type Answer = Result<Expected, Expected>;

fn error(errno: u32, text: impl Into<String>) -> Expected {
    Expected::Error(errno, text.into())
}

fn missing() -> Expected {
    error(ENOENT, "No such file or directory")
}

impl Model {
    pub fn new(dialect: Dialect) -> Self {
        let mut model = Self {
            dialect,
            nodes: Vec::new(),
            fids: BTreeMap::new(),
            said: 0,
            waiting: BTreeMap::new(),
        };
        model.put(ROOT, b"/", Body::Dir(BTreeMap::new()));
        model.put(ROOT, b"stream", Body::Stream);
        model.put(ROOT, b"command", Body::Command);
        model.put(ROOT, b"dir", Body::Dir(BTreeMap::new()));
        model
    }

    fn put(&mut self, above: Node, name: &[u8], body: Body) -> Node {
        let node = self.nodes.len();
        let name = name.to_vec();
        if node != ROOT
            && let Body::Dir(entries) = &mut self.nodes[above].body
        {
            entries.insert(name.clone(), node);
        }
        self.nodes.push(State { name, above, body });
        node
    }

    /// The tags of requests that wait.
    pub fn waiting(&self) -> Vec<u16> {
        self.waiting.values().flatten().copied().collect()
    }

    /// Tells whether a read of this fid waits.
    pub fn waits(&self, fid: u32) -> bool {
        self.waiting.get(&fid).is_some_and(|tags| !tags.is_empty())
    }

    /// A version is agreed on anew.
    pub fn restart(&mut self, dialect: Dialect) {
        self.dialect = dialect;
        self.fids.clear();
        self.waiting.clear();
    }

    fn fid(&self, fid: u32) -> Result<&Fid, Expected> {
        let unknown = || error(EBADF, format!("Unknown fid {}", fid.cast_signed()));
        self.fids.get(&fid).ok_or_else(unknown)
    }

    fn vacant(&self, fid: u32) -> Result<(), Expected> {
        match fid == NOFID || self.fids.contains_key(&fid) {
            true => Err(error(
                EBADF,
                format!("Fid {} already in use", fid.cast_signed()),
            )),
            false => Ok(()),
        }
    }

    fn is_dir(&self, node: Node) -> bool {
        matches!(self.nodes[node].body, Body::Dir(_))
    }

    fn entries(&self, node: Node) -> Result<&BTreeMap<Vec<u8>, Node>, Expected> {
        match &self.nodes[node].body {
            Body::Dir(entries) => Ok(entries),
            _ => Err(error(ENOTDIR, "Not a directory")),
        }
    }

    fn entry(&self, node: Node, name: &[u8]) -> Result<Node, Expected> {
        self.entries(node)?.get(name).copied().ok_or_else(missing)
    }

    /// Tells whether a node is in the directory it was put into.
    fn linked(&self, node: Node) -> bool {
        let State { name, above, .. } = &self.nodes[node];
        node != ROOT && self.entry(*above, name) == Ok(node)
    }

    /// Tells whether anybody could still ask for a node.
    fn alive(&self, node: Node) -> bool {
        node == ROOT
            || self
                .fids
                .values()
                .any(|fid| fid.node == node || fid.root == node)
            || (self.linked(node) && self.alive(self.nodes[node].above))
    }

    fn above(&self, node: Node) -> Option<Node> {
        let above = self.nodes[node].above;
        (node != ROOT && self.alive(above)).then_some(above)
    }

    fn create(&mut self, at: Node, name: &[u8], body: Body, new: bool) -> Result<Node, Expected> {
        let there = self.entries(at)?.get(name).copied();
        let Some(there) = there else {
            return Ok(self.put(at, name, body));
        };
        let exists = Err(error(EEXIST, "Already exists"));
        let Body::File(_, exec) = body else {
            return exists;
        };
        match &mut self.nodes[there].body {
            Body::File(..) if new => exists,
            Body::File(content, runs) => {
                content.clear();
                *runs = exec;
                Ok(there)
            }
            _ => Err(error(EISDIR, "Is a directory")),
        }
    }

    fn open(&mut self, node: Node, truncate: bool, append: bool) -> Opened {
        match &mut self.nodes[node].body {
            Body::Dir(entries) => Opened::Dir {
                names: Some(entries.keys().cloned().collect()),
            },
            body => {
                if let Body::File(content, _) = body
                    && truncate
                {
                    content.clear();
                }
                Opened::File { append, last: None }
            }
        }
    }

    fn rename(&mut self, node: Node, into: Node, name: &[u8]) -> Answer {
        self.entries(into)?;
        if !self.linked(node) || !self.alive(self.nodes[node].above) {
            return Err(missing());
        }
        let mut at = Some(into);
        while let Some(above) = at {
            if above == node {
                return Err(error(EINVAL, "Invalid argument"));
            }
            at = self.above(above);
        }
        if self.entry(into, name).is_ok_and(|there| self.is_dir(there)) {
            return Err(error(EISDIR, "Is a directory"));
        }
        let (old, former) = (self.nodes[node].above, self.nodes[node].name.clone());
        if let Body::Dir(entries) = &mut self.nodes[old].body {
            entries.remove(&former);
        }
        if let Body::Dir(entries) = &mut self.nodes[into].body {
            entries.insert(name.to_vec(), node);
        }
        self.nodes[node].above = into;
        self.nodes[node].name = name.to_vec();
        Ok(Expected::Done)
    }

    fn remove(&mut self, node: Node, recursive: bool) -> Answer {
        match &self.nodes[node].body {
            Body::Stream | Body::Command => {
                return Err(error(EPERM, "Operation not permitted"));
            }
            Body::Dir(entries) if !recursive && !entries.is_empty() => {
                return Err(error(ENOTEMPTY, "Directory not empty"));
            }
            _ => (),
        }
        if !self.linked(node) || !self.alive(self.nodes[node].above) {
            return Err(missing());
        }
        let (above, name) = (self.nodes[node].above, self.nodes[node].name.clone());
        if let Body::Dir(entries) = &mut self.nodes[above].body {
            entries.remove(&name);
        }
        Ok(Expected::Done)
    }

    fn attr(&self, node: Node) -> Expected {
        let linux = self.dialect.is_linux();
        let (length, mode, old, new) = match &self.nodes[node].body {
            Body::Dir(_) => (0, 0o755, 0x8000_0000, 0o040_000),
            Body::File(content, exec) => {
                let mode = if *exec { 0o755 } else { 0o644 };
                (content.len(), mode, 0, 0o100_000)
            }
            Body::Link(target) => (target.len(), 0o777, 0x0200_0000, 0o120_000),
            Body::Stream => (0, 0o444, 0, 0o100_000),
            Body::Command => (0, 0o644, 0, 0o100_000),
        };
        Expected::Attr(length as u64, mode | if linux { new } else { old })
    }

    fn set(&mut self, node: Node, size: Option<u64>, exec: Option<bool>) -> Answer {
        match &mut self.nodes[node].body {
            Body::File(content, runs) => {
                if let Some(size) = size {
                    content.resize(size as usize, 0);
                }
                *runs = exec.unwrap_or(*runs);
                Ok(Expected::Done)
            }
            _ => Err(error(EROFS, "Read-only file")),
        }
    }

    /// The stream says something. Returns what is answered now.
    pub fn say(&mut self, what: u64) -> Vec<(u16, Expected)> {
        self.said = what;
        let heard = Expected::Content(format!("{what}\n").into_bytes());
        let mut answers = Vec::new();
        for (fid, tags) in &mut self.waiting {
            let fid = self.fids.get_mut(fid).map(|fid| &mut fid.opened);
            if let Some(Some(Opened::File { last, .. })) = fid
                && *last != Some(what)
                && !tags.is_empty()
            {
                *last = Some(what);
                answers.push((tags.remove(0), heard.clone()));
            }
        }
        answers
    }

    /// What is answered now that this is asked, in no order.
    pub fn ask(&mut self, tag: u16, request: &Request) -> Vec<(u16, Expected)> {
        if let Request::Flush { oldtag } = request {
            for tags in self.waiting.values_mut() {
                tags.retain(|tag| tag != oldtag);
            }
            return vec![(tag, Expected::Done)];
        }
        let mut answers = Vec::new();
        if let Request::Clunk { fid } | Request::Remove { fid } = request {
            let interrupted = error(EINTR, "Interrupted system call");
            for tag in self.waiting.remove(fid).into_iter().flatten() {
                answers.push((tag, interrupted.clone()));
            }
        }
        match self.answer(tag, request) {
            Ok(Some(answer)) | Err(answer) => answers.push((tag, answer)),
            Ok(None) => (),
        }
        answers
    }

    fn closed(&self, fid: u32, text: &str) -> Result<Node, Expected> {
        let state = self.fid(fid)?;
        match state.opened {
            None => Ok(state.node),
            Some(_) => Err(error(EBADF, text)),
        }
    }

    fn replace(&mut self, fid: u32, node: Node) {
        self.fids.get_mut(&fid).unwrap().node = node;
    }

    fn opened(&mut self, fid: u32, truncate: bool, append: bool) -> Expected {
        let node = self.fids[&fid].node;
        let opened = self.open(node, truncate, append);
        self.fids.get_mut(&fid).unwrap().opened = Some(opened);
        Expected::Qids(vec![node])
    }

    fn listing(&mut self, fid: u32) -> Expected {
        let node = self.fids[&fid].node;
        let now = match &self.nodes[node].body {
            Body::Dir(entries) => entries.keys().cloned().collect(),
            _ => Vec::new(),
        };
        match &mut self.fids.get_mut(&fid).unwrap().opened {
            Some(Opened::Dir { names }) => Expected::Names(names.take().unwrap_or(now)),
            _ => Expected::Names(now),
        }
    }

    fn read(
        &mut self,
        tag: u16,
        fid: u32,
        offset: u64,
        count: u32,
    ) -> Result<Option<Expected>, Expected> {
        let state = self.fid(fid)?.clone();
        Ok(Some(match state.opened {
            None => return Err(error(EBADF, "Can't read from unopened fid")),
            Some(Opened::Attributes) => Expected::Content(Vec::new()),
            Some(Opened::Dir { .. }) if self.dialect.is_linux() => {
                return Err(error(EISDIR, ""));
            }
            Some(Opened::Dir { .. }) if offset != 0 => {
                return Err(error(ESPIPE, "Can't seek in a directory"));
            }
            Some(Opened::Dir { .. }) => self.listing(fid),
            Some(Opened::File { last, .. }) => match &self.nodes[state.node].body {
                Body::File(content, _) => {
                    let (length, offset) = (content.len(), offset as usize);
                    if offset > length {
                        let text = format!("Offset {offset} beyond end-of-file (len = {length})");
                        return Err(error(EINVAL, text));
                    }
                    let end = length.min(offset + count as usize);
                    Expected::Content(content[offset..end].to_vec())
                }
                Body::Stream => {
                    let queued = self.waits(fid);
                    if queued || last == Some(self.said) {
                        self.waiting.entry(fid).or_default().push(tag);
                        return Ok(None);
                    }
                    let said = self.said;
                    let opened = &mut self.fids.get_mut(&fid).unwrap().opened;
                    if let Some(Opened::File { last, .. }) = opened {
                        *last = Some(said);
                    }
                    Expected::Content(format!("{said}\n").into_bytes())
                }
                _ => Expected::Content(Vec::new()),
            },
        }))
    }
}
