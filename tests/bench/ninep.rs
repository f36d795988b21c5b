//! 9P: dk serve beside diod and beside the bare loopback, all asked by the
//! same client.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use datakit::ninep::message::{Reply, Request};
use rs9p::GetAttrMask;

use crate::ninep_peers::{Client, Diod, LOOPBACK, Serving, Wire, echo, echo_by_tokio, echo_of};
use crate::place::{Place, feed, output, run};
use crate::processors::Processors;
use crate::report::{Need, Report, Samples, Unit};

const MIB: usize = 1 << 20;

/// A folder and a store with the same files in them: `file` of 4 KiB and
/// `large` of so many MiB.
struct Subjects {
    dk: Serving,
    /// Where the files are: in a commit, which never changes, as a folder
    /// that nobody else writes to.
    root: String,
    folder: PathBuf,
    diod: Result<Diod, &'static str>,
}

impl Subjects {
    fn new(place: &Place, large: usize) -> Self {
        let folder = place.folder();
        std::fs::write(folder.join("file"), [b'x'; 4096]).unwrap();
        if large > 0 {
            // What cannot be compressed, as most large files.
            let mut source = std::fs::File::open("/dev/urandom")
                .unwrap()
                .take((large * MIB) as u64);
            let mut file = std::fs::File::create(folder.join("large")).unwrap();
            std::io::copy(&mut source, &mut file).unwrap();
        }
        let store = place.store();
        run(place.dk(store.path(), ["import", "master"]).arg(&folder));
        let head = output(&mut place.git(store.path(), ["rev-parse", "master"]));
        Self {
            root: format!("/snapshots/{head}/ro"),
            dk: Serving::start(place, store),
            diod: Diod::start(place, &folder),
            folder,
        }
    }

    /// Where one kind of rows reads.
    fn root_of(&self, kind: &str) -> &str {
        if kind.is_empty() { &self.root } else { LIVE }
    }

    /// Returns clients of both, attached where the files are.
    fn clients(&self, wire: Wire) -> (Client, Option<Client>) {
        self.clients_at(wire, &self.root)
    }

    fn clients_at(&self, wire: Wire, root: &str) -> (Client, Option<Client>) {
        let mut dk = self.dk.connect(wire);
        dk.attach(root);
        let diod = self.diod.as_ref().ok().map(|diod| {
            let mut client = diod.connect(wire);
            client.attach(&diod.folder);
            client
        });
        (dk, diod)
    }
}

/// What is asked again and again.
#[derive(Clone, Copy)]
enum Question {
    Getattr,
    WalkClunk,
    Read,
}

/// Questions in a row to one server before it is another's turn. Asked one
/// each, what is measured is how deep a processor slept meanwhile.
const BURST: usize = 100;

const QUESTIONS: [(&str, Question); 3] = [
    ("getattr", Question::Getattr),
    ("walk", Question::WalkClunk),
    ("read-4k", Question::Read),
];

impl Question {
    /// Asks once and waits for the answer.
    fn ask(self, client: &mut Client) {
        match self {
            Self::Getattr => {
                let mask = GetAttrMask::BASIC;
                client.ask(Request::Getattr { fid: 1, mask });
            }
            Self::WalkClunk => {
                let names = ["file"].into_iter().collect();
                let newfid = 9;
                client.ask(Request::Walk {
                    fid: 0,
                    newfid,
                    names,
                });
                client.ask(Request::Clunk { fid: newfid });
            }
            Self::Read => {
                client.ask(Request::Read {
                    fid: 1,
                    offset: 0,
                    count: 4096,
                });
            }
        }
    }

    /// How many round trips that is.
    fn trips(self) -> f64 {
        if matches!(self, Self::WalkClunk) {
            2.0
        } else {
            1.0
        }
    }

    /// Asks so often with 64 questions under way, each of a fid of its own.
    fn ask_many(self, client: &mut Client, times: usize) -> Duration {
        const WINDOW: u16 = 64;
        let began = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        let mut walked = [false; WINDOW as usize];
        let mut free: Vec<u16> = (0..WINDOW).collect();
        while answered < times {
            while let Some(slot) = free.pop().filter(|_| sent < times) {
                sent += 1;
                let fid = 100 + u32::from(slot);
                let request = match self {
                    Self::Getattr => Request::Getattr {
                        fid,
                        mask: GetAttrMask::BASIC,
                    },
                    Self::Read => Request::Read {
                        fid,
                        offset: 0,
                        count: 4096,
                    },
                    Self::WalkClunk => {
                        let newfid = fid + 100;
                        let walked = &mut walked[usize::from(slot)];
                        *walked = !*walked;
                        match !*walked {
                            true => Request::Clunk { fid: newfid },
                            false => Request::Walk {
                                fid: 0,
                                newfid,
                                names: ["file"].into_iter().collect(),
                            },
                        }
                    }
                };
                client.send(slot, &request);
            }
            client.push();
            loop {
                let (slot, reply) = client.receive();
                assert!(!matches!(reply, Reply::Lerror { .. }), "{reply:?}");
                answered += 1;
                free.push(slot);
                if !client.more() {
                    break;
                }
            }
        }
        for slot in 0..WINDOW {
            if walked[usize::from(slot)] {
                client.ask(Request::Clunk {
                    fid: 200 + u32::from(slot),
                });
            }
        }
        began.elapsed()
    }
}

/// Opens `file` as fid 1, and as 64 more.
fn open_all(client: &mut Client) {
    for fid in std::iter::once(1).chain(100..164) {
        client.open(fid, "file", 0);
    }
}

/// A branch, which is looked up at every access; a commit never changes.
const LIVE: &str = "/branch/master/ro";

const KINDS: [(&str, Wire); 3] = [("", Wire::Unix), ("", Wire::Tcp), ("live-", Wire::Unix)];

/// One question at a time, and 64 of them.
pub fn questions(place: &Place, report: &mut Report) {
    for processors in [Processors::One, Processors::Two] {
        if !processors.are_there() {
            report.skip(
                &format!("9p-{}", processors.name()),
                "there are fewer processors",
            );
            continue;
        }
        let subjects = processors.answer(|| Subjects::new(place, 0));
        processors.ask(|| one_by_one(place, report, &subjects, processors));
    }
    let subjects = Subjects::new(place, 0);
    if let Err(why) = &subjects.diod {
        report.skip("ninep beside diod", why);
    }
    for (kind, wire) in KINDS {
        let (mut dk, mut diod) = subjects.clients_at(wire, subjects.root_of(kind));
        open_all(&mut dk);
        diod.iter_mut().for_each(open_all);
        for (name, question) in QUESTIONS {
            let (mut ours, mut theirs) = (Samples::new(), Samples::new());
            let many = place.choose(5_000, 50_000);
            for _ in 0..5 {
                ours.add(question.ask_many(&mut dk, many));
                if let Some(diod) = &mut diod {
                    theirs.add(question.ask_many(diod, many));
                }
            }
            let rate = |samples: &Samples| many as f64 / samples.p50();
            let peer = diod.as_ref().map(|_| ("diod", rate(&theirs)));
            let need = peer.map_or(Need::Nothing, |_| Need::AtLeast(2.0));
            let name = format!("9p-{kind}{name}-{}-64", wire.name());
            report.row(&name, Unit::Rate, rate(&ours), peer, need);
        }
    }
}

fn one_by_one(place: &Place, report: &mut Report, subjects: &Subjects, processors: Processors) {
    let rounds = place.choose(2_000, 20_000);
    for (kind, wire) in KINDS {
        let (mut dk, mut diod) = subjects.clients_at(wire, subjects.root_of(kind));
        let (mut bare, mut soft) = processors.answer(|| (echo(Wire::Tcp), echo_by_tokio(wire)));
        let mut socket = match wire {
            Wire::Unix => Some(processors.answer(|| echo(wire))),
            Wire::Tcp => None,
        };
        open_all(&mut dk);
        diod.iter_mut().for_each(open_all);
        for (name, question) in QUESTIONS {
            let [mut ours, mut theirs, mut limit] = [const { Samples::new() }; 3];
            let [mut wired, mut runtime] = [const { Samples::new() }; 2];
            for _ in 0..rounds / BURST {
                for _ in 0..BURST {
                    ours.add(timed(|| question.ask(&mut dk)));
                }
                if let Some(diod) = &mut diod {
                    for _ in 0..BURST {
                        theirs.add(timed(|| question.ask(diod)));
                    }
                }
                for _ in 0..BURST {
                    limit.add(timed(|| bare.turn()));
                }
                if let Some(socket) = &mut socket {
                    for _ in 0..BURST {
                        wired.add(timed(|| socket.turn()));
                    }
                }
                for _ in 0..BURST {
                    runtime.add(timed(|| soft.turn()));
                }
            }
            let name = format!("9p-{kind}{name}-{}-{}", wire.name(), processors.name());
            let bare = Some((LOOPBACK, limit.p50() * question.trips()));
            report.times(&name, ours.p50(), bare, Need::AtMost(1.5));
            if socket.is_some() {
                let peer = Some(("a bare Unix socket", wired.p50() * question.trips()));
                report.times(&format!("{name}-socket"), ours.p50(), peer, Need::Nothing);
            }
            let tokio = Some(("an echo by tokio", runtime.p50() * question.trips()));
            report.times(&format!("{name}-tokio"), ours.p50(), tokio, Need::Nothing);
            if diod.is_some() {
                let peer = Some(("diod", theirs.p50()));
                report.times(&format!("{name}-diod"), ours.p50(), peer, Need::AtMost(1.0));
            }
        }
    }
}

fn timed(action: impl FnOnce()) -> Duration {
    let began = Instant::now();
    action();
    began.elapsed()
}

/// Mebibytes a second.
fn speed(bytes: usize, time: f64) -> f64 {
    bytes as f64 / MIB as f64 / time
}

/// A large file from its beginning to its end, a MiB at a time, eight under way.
pub fn sequential(place: &Place, report: &mut Report) {
    let large = place.choose(128, 1024);
    let bytes = large * MIB;
    let subjects = Subjects::new(place, large);
    for wire in [Wire::Unix, Wire::Tcp] {
        let (mut dk, mut diod) = subjects.clients(wire);
        let (mut copy, mut limit) = (Samples::new(), Samples::new());
        let (mut ours, mut theirs) = (Samples::new(), Samples::new());
        for _ in 0..3 {
            copy.add(echo(wire).copy(bytes));
            let file = File::open(subjects.folder.join("large")).unwrap();
            limit.add(echo_of(wire, Some(file)).copy(bytes));
            ours.add(dk.read_all("large", bytes));
            if let Some(diod) = &mut diod {
                theirs.add(diod.read_all("large", bytes));
            }
        }
        let name = format!("9p-sequential-read-{}", wire.name());
        let bare = Some(("bare copy", speed(bytes, copy.p50())));
        let rate = speed(bytes, ours.p50());
        report.row(&name, Unit::Mebibytes, rate, bare, Need::AtLeast(0.5));
        // The bare copy sends one hot MiB again and again; a file has to be read.
        let limit = Some(("a bare copy of the file", speed(bytes, limit.p50())));
        let limited = format!("{name}-limit");
        report.row(&limited, Unit::Mebibytes, rate, limit, Need::Nothing);
        if diod.is_some() {
            let peer = Some(("diod", speed(bytes, theirs.p50())));
            report.row(
                &format!("{name}-diod"),
                Unit::Mebibytes,
                rate,
                peer,
                Need::AtLeast(1.0),
            );
        }
        let (mut ours, mut theirs) = (Samples::new(), Samples::new());
        for round in 0..3 {
            let transaction = format!("seq{}{round}", wire.name());
            let mut writer = subjects.dk.connect(wire);
            writer.transaction(&transaction);
            ours.add(writer.write_all(&format!("written{round}"), bytes, MIB - 24));
            if let Some(diod) = &mut diod {
                theirs.add(diod.write_all(
                    &format!("written{}{round}", wire.name()),
                    bytes,
                    diod.unit(),
                ));
            }
        }
        let name = format!("9p-sequential-write-{}", wire.name());
        let rate = speed(bytes, ours.p50());
        let peer = diod.as_ref().map(|_| ("diod", speed(bytes, theirs.p50())));
        let need = peer.map_or(Need::Nothing, |_| Need::AtLeast(1.0));
        report.row(&name, Unit::Mebibytes, rate, peer, need);
    }
}

/// Writes of 8 KiB to one file: a longer file takes longer in proportion, and
/// the server's memory does not grow with it.
pub fn appends(place: &Place, report: &mut Report) {
    let subjects = Subjects::new(place, 0);
    let mut first = None;
    let sizes: &[usize] = match place.quick {
        true => &[1, 10, 100],
        false => &[1, 10, 100, 1000],
    };
    for size in sizes {
        let mut writer = subjects.dk.connect(Wire::Unix);
        writer.transaction(&format!("append{size}"));
        let time = writer.write_all("appended", size * MIB, 8192).as_secs_f64();
        let each = time / *size as f64;
        let name = format!("9p-write-8k-{size}-mib");
        match first {
            // It is kept in memory and says nothing about the others.
            None if *size == 1 => report.times(&name, each, None, Need::Nothing),
            None => {
                first = Some(each);
                report.times(&name, each, None, Need::Nothing)
            }
            Some(first) => {
                let peer = Some(("each MiB of 10", first));
                report.times(&name, each, peer, Need::AtMost(1.5))
            }
        };
        if let Some(memory) = subjects.dk.memory() {
            let name = format!("9p-write-8k-{size}-memory");
            report.row(&name, Unit::Mebibytes, memory, None, Need::Below(256.0));
        }
    }
}

/// Streams that wait, 10 on each of 1,000 connections, ten of them for what
/// changes.
pub fn streams(place: &Place, report: &mut Report) {
    let store = place.store();
    for branch in ["master", "other"] {
        feed(
            &mut place.dk(store.path(), ["put", &format!("{branch}:file"), "-"]),
            b"content\n",
        );
    }
    let dk = Serving::start(place, store);
    let connections = place.choose(100, 1000);
    let Some(before) = dk.memory() else {
        return report.skip("9p-streams", "no /proc");
    };
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..connections {
        let mut client = dk.connect(Wire::Unix);
        client.attach("/");
        for stream in 0..10u16 {
            let branch = if stream == 0 && number % (connections / 10) == 0 {
                "master"
            } else {
                "other"
            };
            let fid = u32::from(stream) + 1;
            client.open(fid, &format!("branch/{branch}/head.live"), 0);
            let length = client.read(fid, 0).len() as u64;
            let marker = client.read(fid, length);
            assert!(marker.is_empty(), "{marker:?}");
            client.send(
                stream,
                &Request::Read {
                    fid,
                    offset: length,
                    count: 999,
                },
            );
            client.push();
        }
        clients.push(client);
    }
    let each = (dk.memory().unwrap() - before) * 1024.0 / (connections * 10) as f64;
    // A stream's share of its connection with it.
    let need = Need::Below(4.0);
    report.row("9p-stream-memory", Unit::Kibibytes, each, None, need);
    let cpu = dk.cpu();
    std::thread::sleep(Duration::from_secs(place.choose(3, 10) as u64));
    let spent = (dk.cpu() - cpu).as_secs_f64();
    report.times("9p-streams-idle-cpu", spent, None, Need::Below(20.0));
    // A commit, and until the tenth has heard of it.
    let mut writer = dk.connect(Wire::Unix);
    writer.attach("/branch/master");
    let mut samples = Samples::new();
    let step = connections / 10;
    let mut offsets = [41u64; 10];
    for round in 0..place.choose(10, 50) {
        writer.commit_one(&format!("t{round}"), &format!("content {round}\n"));
        let committed = Instant::now();
        for (index, offset) in offsets.iter_mut().enumerate() {
            let client = &mut clients[index * step];
            let (tag, reply) = client.receive();
            let Reply::Read { data } = reply else {
                panic!("{reply:?}");
            };
            assert_eq!((tag, data.len()), (0, 41), "round {round}");
            *offset += 41;
        }
        samples.add(committed.elapsed());
        for (index, offset) in offsets.iter().enumerate() {
            let client = &mut clients[index * step];
            assert!(client.read(1, *offset).is_empty());
            client.send(
                0,
                &Request::Read {
                    fid: 1,
                    offset: *offset,
                    count: 999,
                },
            );
            client.push();
        }
    }
    report.times(
        "9p-streams-tenth-hears",
        samples.p50(),
        None,
        Need::Below(5.0),
    );
}
