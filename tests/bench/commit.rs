//! Commits made in this process, beside the disk's own limit and other libraries.

use std::fs::{self, File};
use std::io::Write as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datakit::client::local::{Durability, Local, Options};
use datakit::client::{Client, CommitOptions, Content, Edit, Edits, FileKind};
use datakit::model::{BranchName, Identity, ObjectId, Signature, Time, TreePath};
use rustix::fs::{Advice, fadvise};
use tokio::runtime::Runtime;

use crate::inputs::{history, path, tree, wide};
use crate::peers::{FastImport, Libgit2, Plumbing};
use crate::place::Place;
use crate::report::{Need, Report, Samples, Unit, duel};

/// A client of dk, and commits to make with it.
pub struct Writer {
    pub client: Arc<Local>,
    pub runtime: Runtime,
    number: usize,
}

impl Writer {
    pub fn open(store: &Path, durability: Durability) -> Self {
        let options = Options {
            durability,
            discover: false,
            alone: false,
        };
        Self {
            client: Arc::new(Local::open(store, options).unwrap()),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .unwrap(),
            number: 0,
        }
    }

    /// Commits one small file and returns how long it took.
    pub fn commit(&mut self, path: &str) -> Duration {
        self.number += 1;
        let (client, number) = (self.client.clone(), self.number);
        let began = Instant::now();
        self.runtime.block_on(put(&*client, path, number));
        began.elapsed()
    }
}

pub fn master() -> BranchName {
    BranchName::new("master").unwrap()
}

/// Writes one small file in one commit.
pub async fn put(client: &dyn Client, path: &str, number: usize) -> ObjectId {
    let path = TreePath::new(path).unwrap();
    let edits = Edits::new(move |sink| {
        let content = format!("content {number} of dk\n");
        sink.edit(Edit::Write {
            path,
            kind: FileKind::Keep,
            content: Content::Bytes(content.as_bytes()),
        })
    });
    let who = Identity::default();
    let options = CommitOptions {
        message: Some(b"change\n".to_vec()),
        author: Some(Signature {
            name: who.name.into_bytes(),
            email: who.email.into_bytes(),
            time: Time::now(),
        }),
        ..CommitOptions::default()
    };
    client.edit(&master(), edits, options).await.unwrap()
}

/// Durable commits of one client.
pub fn durable(place: &Place, report: &mut Report) {
    let base = tree(place, 1000);
    let (ours, theirs, slow, fast) = (
        place.copy(&base),
        place.copy(&base),
        place.copy(&base),
        place.copy(&base),
    );
    let mut writer = Writer::open(ours.path(), Durability::Strict);
    let mut disk = place.disk();
    let mut libgit2 = Libgit2::start(place, theirs.path(), true);
    let mut import = FastImport::start(place, fast.path(), true);
    let mut plumbing = Plumbing::new(place, slow.path(), true);

    let [mut dk, mut limit, mut library, mut stream, mut script] = [const { Samples::new() }; 5];
    for round in 0..place.choose(20, 100) {
        for number in 0..20 {
            let file = (round * 20 + number) * 7 % 1000;
            dk.add(writer.commit(&path(file, 1000)));
            limit.add(disk.append());
        }
        if let Ok(libgit2) = &mut libgit2 {
            libgit2
                .commits(10)
                .into_iter()
                .for_each(|it| library.add(it));
        }
        (0..5).for_each(|_| stream.add(import.commit()));
        script.add(plumbing.commit());
    }
    let mut rate = |name: &str, ours: &Samples, peer: (&str, f64), need| {
        report.row(name, Unit::Rate, 1.0 / ours.p50(), Some(peer), need);
    };
    rate(
        "commit",
        &dk,
        ("F: 4 KiB append + fdatasync", 1.0 / limit.p50()),
        Need::AtLeast(0.1),
    );
    if libgit2.is_ok() {
        let peer = ("libgit2 with fsync", 1.0 / library.p50());
        rate("commit-libgit2", &dk, peer, Need::AtLeast(1.2));
    }
    let peer = ("git plumbing, core.fsync=all", 1.0 / script.p50());
    rate("commit-plumbing", &dk, peer, Need::Nothing);
    let peer = (
        "fast-import, checkpoint, core.fsync=all",
        1.0 / stream.p50(),
    );
    rate("commit-fast-import", &dk, peer, Need::Nothing);
    // What the disk asks of loose objects: five files, the folders of four, and
    // that of the ref, each synced before what relies on it.
    let mut bare = BareCommits::new(&place.folder());
    let mut floor = Samples::new();
    for _ in 0..place.choose(100, 1000) {
        floor.add(bare.commit());
    }
    let peer = ("its files and folders synced, no more", 1.0 / floor.p50());
    rate("commit-limit", &dk, peer, Need::Nothing);
    if let Err(why) = libgit2 {
        report.skip("commit-libgit2", why);
    }
    let peer = Some(("its own p50", dk.p50()));
    report.times("commit-p99", dk.quantile(0.99), peer, Need::Nothing);
}

/// The files of a commit, and nothing else of it.
pub struct BareCommits {
    folder: PathBuf,
    number: usize,
}

impl BareCommits {
    pub fn new(folder: &Path) -> Self {
        for number in 0..=256 {
            fs::create_dir(folder.join(number.to_string())).unwrap();
        }
        Self {
            folder: folder.to_owned(),
            number: 0,
        }
    }

    pub fn commit(&mut self) -> Duration {
        self.number += 1;
        let number = self.number;
        // The last is the ref's, which replaces the one before.
        let folder = |file: usize| match file {
            4 => self.folder.join("256"),
            file => self
                .folder
                .join(((number * 5 + file * 61) % 256).to_string()),
        };
        let began = Instant::now();
        let files: Vec<File> = (0..5)
            .map(|file| {
                let mut new = File::create_new(folder(file).join("new")).unwrap();
                new.write_all(&[b'x'; 200]).unwrap();
                // Begun together, as dk does.
                let _ = fadvise(&new, 0, NonZeroU64::new(1), Advice::DontNeed);
                new
            })
            .collect();
        files.iter().for_each(|file| file.sync_all().unwrap());
        for file in 0..5 {
            let name = match file {
                4 => "ref".into(),
                file => format!("{number}-{file}"),
            };
            let folder = folder(file);
            fs::rename(folder.join("new"), folder.join(name)).unwrap();
            File::open(folder).unwrap().sync_all().unwrap();
        }
        began.elapsed()
    }
}

/// Durable commits of 64 clients of one process to one branch.
pub fn clients(place: &Place, report: &mut Report) {
    const CLIENTS: usize = 64;
    let store = place.copy(&tree(place, 1000));
    let mut writer = Writer::open(store.path(), Durability::Strict);
    let each = 4;
    let mut waits = Samples::new();
    let mut together = || {
        let began = Instant::now();
        let tasks: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let store = writer.client.clone();
                writer.runtime.spawn(async move {
                    let mut waits = Vec::new();
                    for number in 0..each {
                        let file = path((client * each + number) % 1000, 1000);
                        let began = Instant::now();
                        put(&*store, &file, client * 1_000_000 + number).await;
                        waits.push(began.elapsed());
                    }
                    waits
                })
            })
            .collect();
        for task in tasks {
            let done = writer.runtime.block_on(task).unwrap();
            done.into_iter().for_each(|wait| waits.add(wait));
        }
        let time = began.elapsed();
        let mut alone = Duration::ZERO;
        for number in 0..CLIENTS * each / 4 {
            alone += writer.commit(&path(number, 1000));
        }
        (time, alone * 4)
    };
    let (mut all, mut one) = (Samples::new(), Samples::new());
    for _ in 0..place.choose(5, 20) {
        let (time, alone) = together();
        all.add(time);
        one.add(alone);
    }
    let rate = |samples: &Samples| (CLIENTS * each) as f64 / samples.p50();
    let peer = Some(("1 client", rate(&one)));
    report.row(
        "clients-64",
        Unit::Rate,
        rate(&all),
        peer,
        Need::AtLeast(1.0),
    );
    let peer = Some(("the median wait", waits.p50()));
    report.times(
        "clients-64-worst",
        waits.quantile(1.0),
        peer,
        Need::AtMost(20.0),
    );
}

/// Commits that nothing is promised of.
pub fn unsynced(place: &Place, report: &mut Report) {
    let base = tree(place, 1000);
    let (ours, theirs, fast) = (place.copy(&base), place.copy(&base), place.copy(&base));
    let mut writer = Writer::open(ours.path(), Durability::None);
    let mut libgit2 = Libgit2::start(place, theirs.path(), false);
    let mut import = FastImport::start(place, fast.path(), false);
    let bare = place.folder();
    for number in 0..=255 {
        std::fs::create_dir(bare.join(format!("{number:02x}"))).unwrap();
    }
    let [mut dk, mut library, mut stream, mut files] = [const { Samples::new() }; 4];
    for round in 0..place.choose(20, 100) {
        for number in 0..50 {
            let file = (round * 50 + number) * 7 % 1000;
            dk.add(writer.commit(&path(file, 1000)));
        }
        (0..50).for_each(|_| stream.add(import.commit()));
        for number in 0..50 {
            let began = Instant::now();
            for file in 0..4 {
                let name = bare.join(format!("{:02x}/{round}-{number}-{file}", number * 4 + file));
                std::fs::write(name.with_extension("new"), [b'x'; 200]).unwrap();
                std::fs::rename(name.with_extension("new"), name).unwrap();
            }
            // Each replaces the one before, whose file goes.
            std::fs::write(bare.join("ref.lock"), [b'x'; 41]).unwrap();
            std::fs::rename(bare.join("ref.lock"), bare.join("ref")).unwrap();
            files.add(began.elapsed());
        }
        if let Ok(libgit2) = &mut libgit2 {
            libgit2
                .commits(20)
                .into_iter()
                .for_each(|it| library.add(it));
        }
    }
    let ours = 1.0 / dk.p50();
    let peer = Some(("fast-import", 1.0 / stream.p50()));
    report.row("unsynced", Unit::Rate, ours, peer, Need::AtLeast(2.0));
    // What stock git has to see after each: four objects and a ref.
    let peer = Some(("five small files renamed into place", 1.0 / files.p50()));
    report.row("unsynced-limit", Unit::Rate, ours, peer, Need::Nothing);
    match libgit2 {
        Ok(_) => {
            let peer = Some(("libgit2 without fsync", 1.0 / library.p50()));
            report.row("unsynced-libgit2", Unit::Rate, ours, peer, Need::Nothing);
        }
        Err(why) => report.skip("unsynced-libgit2", why),
    }
}

/// The same commit in ever larger stores.
pub fn growth(place: &Place, report: &mut Report) {
    let rounds = place.choose(300, 1000);
    let mut small = {
        let store = place.copy(&tree(place, 1000));
        (Writer::open(store.path(), Durability::None), store)
    };
    let mut against = |name: &str, base: &Path, file: &dyn Fn(usize) -> String, need| {
        let store = place.copy(base);
        let mut writer = Writer::open(store.path(), Durability::None);
        let (mut number, mut other) = (0, 0);
        let (dk, peer) = duel(
            rounds,
            || {
                number += 1;
                writer.commit(&file(number))
            },
            || {
                other += 1;
                small.0.commit(&path(other * 7 % 1000, 1000))
            },
        );
        let peer = Some(("1,000 files, unsynced", peer.p50()));
        report.times(name, dk.p50(), peer, need);
    };
    // A level more of folders is a tree more to read and write.
    for (count, levels) in [(10, 1.0), (100_000, 3.0), (1_000_000, 3.0)] {
        if count == 1_000_000 && place.quick {
            continue;
        }
        let need = Need::AtMost(f64::max(1.0, levels / 2.0) * 1.25);
        let base = tree(place, count);
        let file = |number: usize| path(number * 7 % count, count);
        against(&format!("growth-{count}-files"), &base, &file, need);
    }
    for count in [10, 1000, 100_000] {
        let base = history(place, count);
        let file = |number: usize| path(number * 7 % 1000, 1000);
        let name = format!("growth-{count}-commits");
        against(&name, &base, &file, Need::AtMost(1.25));
    }
    let base = wide(place, 10_000);
    let file = |number: usize| format!("wide/f{}", number * 7 % 10_000);
    against("growth-10000-entries", &base, &file, Need::Nothing);
}
