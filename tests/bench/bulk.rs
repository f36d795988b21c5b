//! A folder into a store, and out of it.

use std::time::Duration;

use crate::inputs::files;
use crate::place::{Place, run};
use crate::report::{Need, Report, duel};

const FILES: usize = 100_000;
const BYTES: usize = 500_000_000;

/// `dk import`, and `git add` with `git commit`.
pub fn import(place: &Place, report: &mut Report) {
    let source = files(place, FILES, BYTES);
    let dk = || -> Duration {
        let store = place.store();
        let mut command = place.dk(store.path(), ["import", "master"]);
        run(command.arg(&source))
    };
    let peer = |synced: bool| -> Duration {
        let folder = place.folder();
        let git_dir = folder.join("git");
        run(&mut place.git(&folder, ["init", "--quiet", "--bare", "git"]));
        let git = |args: &[&str]| {
            let mut command = if synced {
                place.durable_git(&source, args)
            } else {
                place.git(&source, args)
            };
            command
                .env("GIT_DIR", &git_dir)
                .env("GIT_WORK_TREE", &source);
            run(&mut command)
        };
        git(&["add", "--all"]) + git(&["commit", "--quiet", "-m", "import"])
    };
    let rounds = place.choose(1, 3);
    let (ours, theirs) = duel(rounds, dk, || peer(false));
    let against = Some(("git add + commit, unsynced", theirs.p50()));
    report.times("import", ours.p50(), against, Need::AtMost(1.0 / 1.5));
    if !place.quick {
        let theirs = peer(true).as_secs_f64();
        let against = Some(("git add + commit, core.fsync=all", theirs));
        report.times("import-fsync", ours.p50(), against, Need::Nothing);
    }
}

/// `dk export`, and `git archive | tar x`.
pub fn export(place: &Place, report: &mut Report) {
    let source = files(place, FILES, BYTES);
    let store = place.input(&format!("imported-{FILES}-{BYTES}.git"), |dir| {
        std::fs::create_dir_all(dir).unwrap();
        run(&mut place.dk(dir, ["init", "--quiet"]));
        run(place.dk(dir, ["import", "master"]).arg(&source));
    });
    let (ours, theirs) = duel(
        place.choose(2, 5),
        || {
            let folder = place.folder();
            run(place.dk(&store, ["export", "master"]).arg(&folder))
        },
        || {
            let folder = place.folder();
            let mut command = place.program("sh");
            command
                .args(["-c", "git archive master | tar x -C \"$1\"", "sh"])
                .arg(&folder)
                .current_dir(&store);
            run(&mut command)
        },
    );
    let against = Some(("git archive | tar x", theirs.p50()));
    report.times("export", ours.p50(), against, Need::AtMost(1.0));
    let (ours, theirs) = duel(
        place.choose(2, 5),
        || run(&mut place.dk(&store, ["export", "master", "-"])),
        || run(&mut place.git(&store, ["archive", "--format=tar", "master"])),
    );
    let against = Some(("git archive", theirs.p50()));
    report.times("export-tar", ours.p50(), against, Need::AtMost(1.0));
}
