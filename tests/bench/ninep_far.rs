//! 9P from far away, and for long: commits through it, bulk work over a slow
//! wire, and what the server holds after many commits and connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use datakit::client::local::Durability;
use datakit::client::remote::{Options, Remote};
use datakit::client::{CommitOptions, Content, Edit, Edits, FileKind};
use datakit::model::{Identity, Signature, Time, TreePath};
use datakit::ninep::message::{Entry, Reply, Request, flags};
use datakit::ninep::wire::Data;

use crate::commit::{Writer, master};
use crate::inputs::{path, tree};
use crate::ninep_peers::{Client, Diod, Echo, LOOPBACK, Serving, Wire, echo};
use crate::place::{Place, Store, feed, run};
use crate::processors::Processors;
use crate::report::{Need, Report, Samples, Unit};

/// What a wire to another room adds each way.
const DELAY: Duration = Duration::from_millis(1);

/// One durable transaction, begun, written and committed: through a server on
/// a Unix socket, and by the store itself. What 9P adds is the same whether the
/// disk is waited for or not, and is lost in the disk's moods where it is: so it
/// is measured without syncs.
pub fn commits(place: &Place, report: &mut Report) {
    for processors in [Processors::One, Processors::Two] {
        let name = format!("9p-commit-adds-{}", processors.name());
        if !processors.are_there() {
            report.skip(&name, "there are fewer processors");
            continue;
        }
        let option = "--durability=none";
        let start = |store| processors.answer(|| Serving::start_with(place, store, &[option]));
        let [ours, theirs, turn] = processors.ask(|| {
            let bare = processors.answer(|| echo(Wire::Tcp));
            commit_both(place, Durability::None, start, bare)
        });
        let added = ours.over(&theirs).p50().max(0.0);
        let peer = Some((LOOPBACK, turn.p50()));
        report.times(&name, added, peer, Need::AtMost(6.0));
    }
    let start = |store| Serving::start(place, store);
    let [ours, theirs, _] = commit_both(place, Durability::Strict, start, echo(Wire::Tcp));
    let peer = Some(("the store itself", theirs.p50()));
    report.times("9p-commit", ours.p50(), peer, Need::Nothing);
}

/// Transactions through a server, by the store itself, and what a turn takes
/// meanwhile.
fn commit_both(
    place: &Place,
    durability: Durability,
    start: impl FnOnce(Store) -> Serving,
    mut bare: Echo,
) -> [Samples; 3] {
    // As that of a dk.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let base = tree(place, 1000);
    let (near, far) = (place.copy(&base), place.copy(&base));
    let local = Writer::open(near.path(), durability).client;
    let server = start(far);
    let url = format!("unix://{}", server.socket().display());
    let remote = runtime.block_on(Remote::connect(&url, Options::default()));
    let remote = remote.unwrap();
    let [mut ours, mut theirs, mut turn] = [const { Samples::new() }; 3];
    for number in 0..place.choose(100, 1000) {
        let file = path(number * 7 % 1000, 1000);
        ours.add(timed(|| {
            runtime.block_on(transaction(&remote, &file, number));
        }));
        theirs.add(timed(|| {
            runtime.block_on(transaction(&*local, &file, number));
        }));
        turn.add(timed(|| bare.turn()));
    }
    [ours, theirs, turn]
}

async fn transaction(client: &dyn datakit::client::Client, file: &str, number: usize) {
    let who = Identity::default();
    let who = Signature {
        name: who.name.into_bytes(),
        email: who.email.into_bytes(),
        time: Time::now(),
    };
    let begun = client.begin(&master(), None, None, Some(who)).await;
    let id = begun.unwrap().id;
    let path = TreePath::new(file).unwrap();
    let edits = Edits::at_hand(move |sink| {
        let content = format!("content {number} of dk\n");
        sink.edit(Edit::Write {
            path,
            kind: FileKind::Keep,
            content: Content::Bytes(content.as_bytes()),
        })
    });
    client.tx_edit(&id, edits).await.unwrap();
    let options = CommitOptions::default();
    client.tx_commit(&id, options).await.unwrap();
}

fn timed(action: impl FnOnce()) -> Duration {
    let began = Instant::now();
    action();
    began.elapsed()
}

/// Listing and importing many files, each way a millisecond away. The peer does
/// what a mount's `find` and `cp -r` do, one file after the other.
pub fn far(place: &Place, report: &mut Report) {
    let listed = place.choose(10_000, 100_000);
    let copied = place.choose(1_000, 10_000);
    let folder = place.folder();
    run(place
        .dk(&tree(place, listed), ["export", "master"])
        .arg(folder.join("listed")));
    run(place
        .dk(&tree(place, copied), ["export", "master"])
        .arg(folder.join("copied")));
    let diod = match Diod::start(place, &folder) {
        Ok(diod) => diod,
        Err(why) => return report.skip("9p-far", why),
    };
    let to_diod = delayed(&diod.tcp);
    let mut mount = Client::dial(&to_diod);
    mount.attach(&diod.folder);

    let server = Serving::start(place, place.copy(&tree(place, listed)));
    let url = format!("tcp://{}", delayed(server.tcp()));
    let ours = run(&mut place.dk(Path::new(&url), ["ls", "-r", "master"]));
    let began = Instant::now();
    let found = find(&mut mount, "listed");
    let theirs = began.elapsed();
    assert_eq!(found, listed);
    let peer = Some(("find on a mount of diod", theirs.as_secs_f64()));
    let need = Need::AtMost(1.0 / 20.0);
    report.times("9p-far-list", ours.as_secs_f64(), peer, need);

    let server = Serving::start(place, place.store());
    let url = format!("tcp://{}", delayed(server.tcp()));
    let mut import = place.dk(Path::new(&url), ["import", "master"]);
    let ours = run(import.arg(folder.join("copied")));
    // A tenth of them tell what each takes.
    let some = copied / 10;
    let began = Instant::now();
    for number in 0..some {
        mount.write_one(&format!("new{number}"), b"content\n");
    }
    let theirs = began.elapsed().as_secs_f64() / some as f64;
    let each = ours.as_secs_f64() / copied as f64;
    let peer = Some(("cp -r to a mount of diod", theirs));
    report.times("9p-far-import-each", each, peer, need);
}

/// Counts the files below a directory as `find` on a mount does.
fn find(mount: &mut Client, path: &str) -> usize {
    let (mut files, mut folders) = (0, vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        mount.open(30, &folder, flags::DIRECTORY);
        let mut offset = 0;
        loop {
            let count = 32 << 10;
            let asked = Request::Readdir {
                fid: 30,
                offset,
                count,
            };
            let Reply::Readdir { data } = mount.ask(asked) else {
                panic!("not a listing");
            };
            if data.is_empty() {
                break;
            }
            for entry in Entry::list(&data).unwrap() {
                offset = entry.offset;
                match &entry.name[..] {
                    b"." | b".." => (),
                    name if entry.kind == Entry::DIR => {
                        let name = std::str::from_utf8(name).unwrap();
                        folders.push(format!("{folder}/{name}"));
                    }
                    _ => files += 1,
                }
            }
        }
        mount.ask(Request::Clunk { fid: 30 });
    }
    files
}

impl Client {
    /// Creates a file in fid 0 as a copying program on a mount does: looks,
    /// creates, writes, closes.
    fn write_one(&mut self, name: &str, content: &'static [u8]) {
        let walk = |names| Request::Walk {
            fid: 0,
            newfid: 31,
            names,
        };
        self.ask(walk(Default::default()));
        self.ask(Request::Lcreate {
            fid: 31,
            name: name.to_owned().into(),
            flags: flags::CREAT | flags::RDWR,
            mode: 0o644,
            gid: 0,
        });
        self.ask(Request::Write {
            fid: 31,
            offset: 0,
            data: Data(Bytes::from_static(content)),
        });
        self.ask(Request::Clunk { fid: 31 });
    }
}

/// Returns an address that leads to another, [`DELAY`] later each way.
fn delayed(to: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let to = to.to_owned();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(&to) else {
                return;
            };
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
            }
            let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
            carry(near, far);
            carry(back.0, back.1);
        }
    });
    address
}

/// Carries bytes one way: each piece is on its way for [`DELAY`], however many
/// are.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(1024);
    std::thread::spawn(move || {
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            let due = Instant::now() + DELAY;
            if sender.send((due, piece[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, piece) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Mebibytes that the caches of a server hold, as it says: `NAME COUNT BYTES`,
/// a line each.
fn cached(told: &[u8]) -> f64 {
    let lines = std::str::from_utf8(told).unwrap().lines();
    let bytes = lines.filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok());
    bytes.sum::<f64>() / f64::from(1 << 20)
}

/// What the server holds after many connections and many commits, beside what
/// it held after a tenth of them.
pub fn memory(place: &Place, report: &mut Report) {
    let mut row = |name: &str, after: Option<(f64, f64)>| match after {
        Some((some, all)) => {
            let peer = Some(("after a tenth of them", some));
            report.row(name, Unit::Mebibytes, all, peer, Need::AtMost(1.25));
        }
        None => report.skip(name, "no /proc"),
    };
    let base = tree(place, 1000);
    let server = Serving::start(place, place.copy(&base));
    let many = place.choose(10_000, 1_000_000);
    let connect = |count: usize| {
        for _ in 0..count {
            server.connect(Wire::Unix).attach("/");
        }
        server.memory()
    };
    let name = format!("9p-memory-{many}-connects");
    row(&name, connect(many / 10).zip(connect(many * 9 / 10)));

    // Without the disk, or it would take an hour.
    let options = ["--durability=none"];
    let store = place.copy(&base);
    let mut first = place.dk(store.path(), ["put", "master:file", "-"]);
    feed(&mut first, b"content\n");
    let server = Serving::start_with(place, store, &options);
    let many = place.choose(2_000, 100_000);
    let mut client = server.connect(Wire::Unix);
    client.attach("/branch/master");
    let mut asking = server.connect(Wire::Unix);
    asking.attach("/");
    let mut number = 0;
    // Trees are kept in memory up to a bound, which so many commits may or may
    // not reach: what is held besides must not grow.
    let mut commit = |count: usize| {
        for _ in 0..count {
            number += 1;
            client.commit_one(&format!("t{number}"), &format!("content {number}\n"));
        }
        asking.open(1, "debug/caches", 0);
        let told = asking.read(1, 0);
        asking.ask(Request::Clunk { fid: 1 });
        Some(server.memory()? - cached(&told))
    };
    let name = format!("9p-memory-{many}-commits");
    row(&name, commit(many / 10).zip(commit(many * 9 / 10)));
}
