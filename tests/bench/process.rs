//! Whole processes that do something small: what a script pays for each.

use std::fs;
use std::process::Command;

use crate::commit::BareCommits;
use crate::inputs::{path, tree};
use crate::peers::Plumbing;
use crate::place::{Place, feed, output, run};
use crate::report::{Need, Report, Samples, duel};

/// `dk put` and `git commit`.
pub fn put(place: &Place, report: &mut Report) {
    let rounds = place.choose(60, 300);
    for (name, level, synced) in [("put", "strict", true), ("put-unsynced", "none", false)] {
        let base = tree(place, 1000);
        let store = place.copy(&base);
        let work = &place.folder();
        run(place
            .program("git")
            .args(["clone", "--quiet"])
            .arg(&base)
            .arg(work));
        let (mut ours, mut theirs) = (0, 0);
        let (dk, peer) = duel(
            rounds,
            || {
                ours += 1;
                let to = format!("master:{}", path(ours * 7 % 1000, 1000));
                let args = ["--durability", level, "put", &to, "-m", "change"];
                let content = format!("content {ours} of dk\n");
                feed(&mut place.dk(store.path(), args), content.as_bytes())
            },
            || {
                theirs += 1;
                let file = path(theirs * 7 % 1000, 1000);
                fs::write(work.join(&file), format!("content {theirs} of git\n")).unwrap();
                let args = ["commit", "--quiet", "-m", "change", "--", &file];
                run(&mut if synced {
                    place.durable_git(work, args)
                } else {
                    place.git(work, args)
                })
            },
        );
        let peer_name = if synced {
            "git commit, core.fsync=all"
        } else {
            "git commit"
        };
        let peer = Some((peer_name, peer.p50()));
        report.times(name, dk.p50(), peer, Need::AtMost(0.5));
        if synced {
            report.times("put-p50", dk.p50(), None, Need::Below(10.0));
        }
    }
}

/// Three processes of a transaction, and a script of git's plumbing.
pub fn tx(place: &Place, report: &mut Report) {
    let base = tree(place, 1000);
    let (ours, theirs) = (place.copy(&base), place.copy(&base));
    let mut plumbing = Plumbing::new(place, theirs.path(), true);
    let script = r#"set -e
        tx=$("$DK" tx begin master)
        printf '%s' "$1" | "$DK" tx write "$tx" "$2"
        "$DK" tx commit "$tx" -m change"#;
    let dk = place.dk(ours.path(), [""]);
    let mut number = 0;
    let (dk, peer) = duel(
        place.choose(30, 150),
        || {
            number += 1;
            let mut command = place.program("sh");
            command
                .args(["-c", script, "sh"])
                .arg(format!("content {number} of dk\n"))
                .arg(path(number * 7 % 1000, 1000))
                .env("DK", dk.get_program())
                .env("DK_STORE", ours.path());
            run(&mut command)
        },
        || plumbing.transaction(),
    );
    let peer = Some(("git plumbing with a ref for it, core.fsync=all", peer.p50()));
    report.times("tx", dk.p50(), peer, Need::AtMost(1.0 / 3.0));
    // What the machine itself asks for it: three starts of a program, and three
    // times the files of a commit, each step being as durable as one.
    let mut bare = BareCommits::new(&place.folder());
    let starts = || run(&mut place.program("true"));
    let mut floor = Samples::new();
    for _ in 0..place.choose(30, 150) {
        let steps = (0..3).map(|_| starts() + bare.commit());
        floor.add(steps.sum());
    }
    let peer = Some(("three times true(1) and a commit's bare files", floor.p50()));
    report.times("tx-limit", dk.p50(), peer, Need::Nothing);
}

/// `dk cat` and `git cat-file`.
pub fn cat(place: &Place, report: &mut Report) {
    let store = tree(place, 100_000);
    let file = format!("master:{}", path(77_777, 100_000));
    let cat = || place.dk(&store, ["cat", &file]);
    let peer = || place.git(&store, ["cat-file", "blob", &file]);
    assert_eq!(output(&mut cat()), output(&mut peer()));
    let (times, theirs) = duel(
        place.choose(200, 1000),
        || run(&mut cat()),
        || run(&mut peer()),
    );
    let against = Some(("git cat-file", theirs.p50()));
    report.times("cat", times.p50(), against, Need::AtMost(1.0));
    memory(place, report, "cat-memory", "git cat-file", &cat(), &peer());
    // A program that is mapped counts with the 64 KiB around whatever of it is
    // touched: what is shared by all processes, and there before a store is.
    let unit = crate::report::Unit::Mebibytes;
    let start = place.memory(&place.dk(&store, ["--version"]));
    if let (Some(cat), Some(start)) = (place.memory(&cat()), start) {
        let peer = Some(("dk --version, which opens no store", start));
        report.row("cat-memory-limit", unit, cat, peer, Need::Nothing);
    }
}

/// Prints a row of the memory two programs hold at most.
pub fn memory(
    place: &Place,
    report: &mut Report,
    name: &str,
    peer_name: &str,
    dk: &Command,
    peer: &Command,
) {
    match (place.memory(dk), place.memory(peer)) {
        (Some(dk), Some(peer)) => {
            let unit = crate::report::Unit::Mebibytes;
            let peer = Some((peer_name, peer));
            report.row(name, unit, dk, peer, Need::AtMost(2.0));
        }
        _ => report.skip(name, "no GNU time at /usr/bin/time"),
    }
}
