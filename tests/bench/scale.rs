//! Large in one respect: branches, a directory, a file.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::inputs::{Noise, branches as many, wide};
use crate::peers::Plumbing;
use crate::place::{Place, output, run};

use crate::report::{Need, Report, Unit, duel};

/// 10,000 branches: listing them, writing one.
pub fn branches(place: &Place, report: &mut Report) {
    let store = place.copy(&many(place, 10_000));
    let list = || place.dk(store.path(), ["branch"]);
    let format = "--format=%(refname:short)";
    let peer = || place.git(store.path(), ["for-each-ref", format, "refs/heads"]);
    assert_eq!(output(&mut peer()).lines().count(), 10_001);
    let (dk, git) = duel(
        place.choose(20, 60),
        || run(&mut list()),
        || run(&mut peer()),
    );
    let against = Some(("git for-each-ref", git.p50()));
    report.times("branches-list", dk.p50(), against, Need::AtMost(1.0));
    let one = place.copy(&many(place, 1));
    let put = |store: &Path| run(&mut place.dk(store, ["put", "master:a", "/dev/null"]));
    let (dk, alone) = duel(
        place.choose(20, 60),
        || put(store.path()),
        || put(one.path()),
    );
    let against = Some(("dk put with 1 branch", alone.p50()));
    report.times("branches-put", dk.p50(), against, Need::AtMost(1.25));
}

/// A folder of 100,000 entries.
pub fn directory(place: &Place, report: &mut Report) {
    let store = place.copy(&wide(place, 100_000));
    let list = || place.dk(store.path(), ["ls", "master:wide"]);
    let peer = || place.git(store.path(), ["ls-tree", "--name-only", "master:wide"]);
    let (dk, git) = duel(
        place.choose(10, 40),
        || run(&mut list()),
        || run(&mut peer()),
    );
    let against = Some(("git ls-tree", git.p50()));
    report.times("directory-list", dk.p50(), against, Need::AtMost(1.0));
    let file = "master:wide/f77777";
    let (dk, git) = duel(
        place.choose(20, 60),
        || run(&mut place.dk(store.path(), ["cat", file])),
        || run(&mut place.git(store.path(), ["cat-file", "blob", file])),
    );
    let against = Some(("git cat-file", git.p50()));
    report.times("directory-cat", dk.p50(), against, Need::AtMost(1.0));
    let (dk, git) = duel(
        place.choose(10, 40),
        || run(&mut place.dk(store.path(), ["put", file, "/dev/null"])),
        || Plumbing::new(place, store.path(), true).commit_at("wide/f77777"),
    );
    let against = Some(("git plumbing, core.fsync=all", git.p50()));
    report.times("directory-put", dk.p50(), against, Need::AtMost(0.5));
}

/// One large file, in and out.
pub fn huge(place: &Place, report: &mut Report) {
    let size = place.choose(512 << 20, 4 << 30);
    let source = place.input(&format!("huge-{size}"), |path| {
        let mut noise = Noise(3);
        let mut out = fs::File::create(path).unwrap();
        for _ in 0..size >> 20 {
            out.write_all(&noise.text(1 << 20)).unwrap();
        }
    });
    let source = source.to_str().unwrap();
    let mut kept = None;
    let (dk, git) = duel(
        1,
        || {
            let store = place.store();
            let put = ["put", "master:huge", source];
            let time = run(&mut place.dk(store.path(), put));
            kept = Some(store);
            time
        },
        || {
            let store = place.store();
            run(&mut place.durable_git(store.path(), ["hash-object", "-w", source]))
        },
    );
    let against = Some(("git hash-object -w", git.p50()));
    report.times("huge-put", dk.p50(), against, Need::AtMost(1.0));
    let store = kept.unwrap();
    let cat = || place.dk(store.path(), ["cat", "master:huge"]);
    let peer = || place.git(store.path(), ["cat-file", "blob", "master:huge"]);
    let (dk, git) = duel(1, || run(&mut cat()), || run(&mut peer()));
    let against = Some(("git cat-file", git.p50()));
    report.times("huge-cat", dk.p50(), against, Need::AtMost(1.0));
    match place.memory(&cat()) {
        Some(most) => report.row(
            "huge-cat-memory",
            Unit::Mebibytes,
            most,
            None,
            Need::Below(64.0),
        ),
        None => return report.skip("huge-memory", "no GNU time at /usr/bin/time"),
    };
    let fresh = place.store();
    let put = place.dk(fresh.path(), ["put", "master:huge", source]);
    let most = place.memory(&put).unwrap();
    report.row(
        "huge-put-memory",
        Unit::Mebibytes,
        most,
        None,
        Need::Below(64.0),
    );
    let spooled = place.store();
    let mut put = place.program("sh");
    put.args(["-c", "cat \"$2\" | \"$1\" -C \"$0\" put master:huge"])
        .arg(spooled.path())
        .arg(place.dk(spooled.path(), [""]).get_program())
        .arg(source);
    let most = place.memory(&put).unwrap();
    report.row(
        "huge-pipe-memory",
        Unit::Mebibytes,
        most,
        None,
        Need::Below(64.0),
    );
}
