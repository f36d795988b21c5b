//! Sessions of random valid requests, one by one and in bursts, compared with
//! what the model foretells. The same runs as a fuzz target.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use datakit::ninep::message::{Dialect, Entry, Record, Reply, Request};
use datakit::ninep::wire::{Data, Names, Reader, Text};
use rs9p::{GetAttrMask, NOTAG, SetAttr, SetAttrMask, Time};

use super::model::{Expected, Model, Node};
use super::peer::{House, Peer, attach};
use crate::wire::any::{Dice, duration, seed};

const NAMES: [&str; 8] = [
    "a",
    "b",
    "c",
    "dir",
    "stream",
    "command",
    "nowhere",
    "a long name",
];

const NOT_DIR: &[u8] = b" is not a directory";

/// A client and what it must see.
struct Session {
    house: House,
    peer: Peer,
    model: Model,
    dice: Dice,
    /// The paths in qids, as they were told.
    qids: BTreeMap<Node, u64>,
    tag: u16,
    said: u64,
    /// What was asked since something was last agreed on.
    asked: Vec<(u16, Request)>,
}

/// Has one session of so many steps.
pub async fn session(seed: u64, steps: usize) {
    let mut dice = Dice(seed);
    let house = House::new();
    // Commands do not wait here.
    house.toy.state.before.add_permits(1 << 20);
    house.toy.state.after.add_permits(1 << 20);
    let dialect = *dice.pick(&Dialect::ALL);
    let peer = house.attach(dialect).await;
    let mut model = Model::new(dialect);
    let attached = model.ask(0, &attach(0, ""));
    let mut session = Session {
        house,
        peer,
        model,
        dice,
        qids: BTreeMap::new(),
        tag: 0,
        said: 0,
        asked: Vec::new(),
    };
    drop(attached);
    for _ in 0..steps {
        session.step().await;
    }
    drop(session.peer);
    session.house.empties().await;
}

impl Session {
    async fn step(&mut self) {
        match self.dice.below(40) {
            0 => {
                self.said += self.dice.below(2) as u64;
                self.house.toy.say(self.said);
                let expected = self.model.say(self.said);
                self.expect(expected).await;
            }
            1 if self.dice.below(10) == 0 => {
                let dialect = *self.dice.pick(&Dialect::ALL);
                let reply = self.peer.version(1 << 20, dialect.version()).await;
                assert!(matches!(reply, Reply::Version { .. }), "{reply:?}");
                self.peer.dialect = dialect;
                self.model.restart(dialect);
            }
            _ => self.burst().await,
        }
    }

    /// Sends a few requests in one go.
    async fn burst(&mut self) {
        let most = *self.dice.pick(&[1, 1, 10]);
        let (mut requests, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..most {
            let Some(request) = self.request() else {
                continue;
            };
            self.tag = (self.tag + 1) % 50_000;
            let waits = self.model.waiting().len();
            let answers = self.model.ask(self.tag, &request);
            let fewer = self.model.waiting().len() < waits;
            let flush = matches!(request, Request::Flush { .. });
            requests.push((self.tag, request));
            expected.extend(answers);
            // What comes behind a fid that ends may take effect after others.
            if fewer && !flush {
                break;
            }
        }
        self.asked.extend(requests.iter().cloned());
        self.peer.send_all(requests).await;
        self.expect(expected).await;
    }

    /// Exactly this is answered.
    async fn expect(&mut self, expected: Vec<(u16, Expected)>) {
        let mut expected: BTreeMap<u16, Expected> = expected.into_iter().collect();
        while !expected.is_empty() {
            let answer = tokio::time::timeout(Duration::from_secs(5), self.peer.next()).await;
            let Ok(Some((tag, reply))) = answer else {
                panic!(
                    "{answer:?} where the model has {expected:?}: {:?}",
                    self.asked
                );
            };
            let wanted = expected.remove(&tag);
            let wanted = wanted.unwrap_or_else(|| panic!("nobody asked {tag}: {reply:?}"));
            self.compare(&wanted, reply);
        }
        self.peer.quiet().await;
        self.asked.clear();
    }

    fn compare(&mut self, wanted: &Expected, reply: Reply) {
        let dialect = self.peer.dialect;
        let same = match (wanted, &reply) {
            (Expected::Error(wanted, _), Reply::Lerror { errno, .. }) => wanted == errno,
            (Expected::Error(number, wanted), Reply::Error { text, errno }) => {
                // A name in it is that of when the request came: a rename before
                // it may be under way still.
                let told = |text: &[u8]| match text.ends_with(NOT_DIR) {
                    true => NOT_DIR.to_vec(),
                    false => text.to_vec(),
                };
                told(wanted.as_bytes()) == told(text) && errno.is_none_or(|errno| errno == *number)
            }
            (Expected::Qids(nodes), Reply::Walk { qids }) => {
                nodes.len() == qids.len()
                    && nodes
                        .iter()
                        .zip(qids)
                        .all(|(node, qid)| self.same(*node, qid.path))
            }
            (
                Expected::Qids(nodes),
                Reply::Attach { qid }
                | Reply::Open { qid, .. }
                | Reply::Create { qid, .. }
                | Reply::Lopen { qid, .. }
                | Reply::Lcreate { qid, .. }
                | Reply::Mkdir { qid }
                | Reply::Symlink { qid },
            ) => self.same(nodes[0], qid.path),
            (Expected::Content(wanted), Reply::Read { data }) => wanted == &**data,
            (Expected::Content(wanted), Reply::Readlink { target }) => wanted == &**target,
            (Expected::Names(wanted), Reply::Read { data }) => {
                let mut from = Reader::new(data.0.clone(), dialect);
                let records = std::iter::from_fn(|| Record::get_entry(&mut from).ok());
                records
                    .map(|record| record.name.to_vec())
                    .eq(wanted.iter().cloned())
            }
            (Expected::Names(wanted), Reply::Readdir { data }) => {
                let entries = Entry::list(data).unwrap();
                let names = entries.into_iter().map(|entry| entry.name.to_vec());
                names.eq(wanted.iter().cloned())
            }
            (Expected::Attr(size, mode), Reply::Stat { stat }) => {
                (*size, *mode) == (stat.length, stat.mode)
            }
            (Expected::Attr(size, mode), Reply::Getattr { stat, .. }) => {
                (*size, *mode) == (stat.size, stat.mode)
            }
            (Expected::Done, reply) => !matches!(reply, Reply::Error { .. } | Reply::Lerror { .. }),
            _ => false,
        };
        let asked = &self.asked;
        assert!(same, "{reply:?} where the model has {wanted:?}: {asked:?}");
    }

    /// A node has one path, and no other has it.
    fn same(&mut self, node: Node, path: u64) -> bool {
        let others = self
            .qids
            .iter()
            .any(|(other, known)| *other != node && *known == path);
        *self.qids.entry(node).or_insert(path) == path && !others
    }

    fn fid(&mut self) -> u32 {
        match self.dice.below(30) {
            0 => u32::MAX,
            1 => 77,
            _ => self.dice.below(6) as u32,
        }
    }

    fn name(&mut self) -> Text {
        (*self.dice.pick(&NAMES)).into()
    }

    /// Makes a request, unless it would have to wait behind a read.
    fn request(&mut self) -> Option<Request> {
        let linux = self.peer.dialect.is_linux();
        let (fid, other) = (self.fid(), self.fid());
        let name = self.name();
        let waits = self.model.waits(fid);
        let choice = self.dice.below(24);
        let looks = matches!(choice, 0..=4 | 8 | 10 | 11 | 12);
        if (waits && !looks) || (choice <= 4 && fid == other && waits) {
            return None;
        }
        let makes = matches!(choice, 0..=4 | 23);
        if makes && self.model.waits(other) {
            return None;
        }
        let offset = self.dice.below(30) as u64;
        let flags = *self.dice.pick(&[0, 2, 0o1001, 0o2002, 0o200, 0o200_000]);
        let mode = *self.dice.pick(&[0o644, 0o755]);
        Some(match choice {
            0..=3 => {
                let steps = self.dice.below(4);
                let mut names = Vec::new();
                for _ in 0..steps {
                    names.push(match self.dice.below(8) {
                        0 => ".".into(),
                        1 => "..".into(),
                        _ => self.name(),
                    });
                }
                Request::Walk {
                    fid,
                    newfid: other,
                    names: names.iter().map(|name| &name[..]).collect::<Names>(),
                }
            }
            4 => {
                let places = ["", "/", "dir", "nowhere", "a/b"];
                attach(other, places[self.dice.below(places.len())])
            }
            5 if linux => Request::Lopen { fid, flags },
            5 => Request::Open {
                fid,
                mode: *self.dice.pick(&[0, 1, 2, 3, 17, 0x82, 4]),
            },
            6 if linux => Request::Lcreate {
                fid,
                name,
                flags,
                mode,
                gid: 0,
            },
            6 => Request::Create {
                fid,
                name,
                perm: *self.dice.pick(&[0o644, 0o755, 0x8000_01ed]),
                mode: *self.dice.pick(&[0, 2, 18]),
                extension: Some("".into()),
            },
            7 => Request::Write {
                fid,
                offset,
                data: Data(vec![b'x'; self.dice.below(20)].into()),
            },
            8 | 9 => Request::Read {
                fid,
                offset: if self.dice.below(3) == 0 { offset } else { 0 },
                count: 100_000,
            },
            10 => match self.dice.below(3) {
                0 => Request::Clunk { fid },
                1 => Request::Remove { fid },
                _ => Request::Flush {
                    oldtag: self.flushed(),
                },
            },
            11 => Request::Flush {
                oldtag: self.flushed(),
            },
            12 | 13 if linux => Request::Getattr {
                fid,
                mask: GetAttrMask::BASIC,
            },
            12 | 13 => Request::Stat { fid },
            14 | 15 if linux => {
                let masks = [SetAttrMask::SIZE, SetAttrMask::MODE, SetAttrMask::MTIME];
                let time = Time { sec: 0, nsec: 0 };
                Request::Setattr {
                    fid,
                    valid: *self.dice.pick(&masks),
                    attr: SetAttr {
                        mode,
                        uid: 0,
                        gid: 0,
                        size: offset,
                        atime: time,
                        mtime: time,
                    },
                }
            }
            14 | 15 => {
                let mut stat = Record::unset();
                match self.dice.below(3) {
                    0 => stat.length = offset,
                    1 => stat.name = name,
                    _ => stat.mtime = 5,
                }
                Request::Wstat { fid, stat }
            }
            _ if !linux => return None,
            16 => Request::Mkdir {
                dfid: fid,
                name,
                mode,
                gid: 0,
            },
            17 => Request::Symlink {
                fid,
                name,
                target: "to/it".into(),
                gid: 0,
            },
            18 if self.model.waits(other) => return None,
            18 => Request::Rename {
                fid,
                dfid: other,
                name,
            },
            19 => Request::Renameat {
                olddir: fid,
                oldname: name,
                newdir: other,
                newname: self.name(),
            },
            20 => Request::Unlinkat {
                dfid: fid,
                name,
                flags: *self.dice.pick(&[0, 0x200]),
            },
            21 => Request::Readlink { fid },
            22 => Request::Readdir {
                fid,
                offset: 0,
                count: 100_000,
            },
            _ => Request::Xattrwalk {
                fid,
                newfid: other,
                name: (*self.dice.pick(&["", "user.x"])).into(),
            },
        })
    }

    /// A tag to flush: of something that waits, or of nothing.
    fn flushed(&mut self) -> u16 {
        let waiting = self.model.waiting();
        match waiting.is_empty() || self.dice.below(4) == 0 {
            true => NOTAG - 1,
            false => *self.dice.pick(&waiting),
        }
    }
}

#[test]
fn random_sessions_go_as_foretold() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (begun, first) = (Instant::now(), seed());
    let mut count = 0;
    while begun.elapsed() < duration() {
        println!("seed {}", first + count);
        runtime.block_on(session(first + count, 500));
        count += 1;
    }
    println!("{count} sessions of 500 steps from seed {first}");
}
