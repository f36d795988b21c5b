//! Long listings: of a large tree, of a long history.

use crate::inputs::{history, tree};
use crate::place::{Place, output, run};
use crate::process::memory;
use crate::report::{Need, Report, duel};

/// `dk ls -r` and `git ls-tree -r`.
pub fn ls(place: &Place, report: &mut Report) {
    let count = 1_000_000;
    let store = tree(place, count);
    let list = || place.dk(&store, ["ls", "-r", "master"]);
    let peer = || place.git(&store, ["ls-tree", "-r", "--name-only", "master"]);
    assert!(
        output(&mut list()) == output(&mut peer()),
        "the lists differ"
    );
    let (dk, theirs) = duel(
        place.choose(7, 25),
        || run(&mut list()),
        || run(&mut peer()),
    );
    let against = Some(("git ls-tree -r --name-only", theirs.p50()));
    report.times("ls", dk.p50(), against, Need::AtMost(1.0));
    memory(place, report, "ls-memory", "git ls-tree", &list(), &peer());
    let long = || place.dk(&store, ["ls", "-rl", "master"]);
    let peer = || place.git(&store, ["ls-tree", "-rl", "master"]);
    let (dk, theirs) = duel(place.choose(2, 5), || run(&mut long()), || run(&mut peer()));
    let against = Some(("git ls-tree -r -l", theirs.p50()));
    report.times("ls-long", dk.p50(), against, Need::AtMost(1.0));
}

/// `dk log` and `git log`, the same facts of each commit.
pub fn log(place: &Place, report: &mut Report) {
    let store = history(place, 100_000);
    let log = || place.dk(&store, ["log", "master"]);
    let format = "--format=commit %H%nAuthor: %an <%ae>%nDate:   %ad%n%n%w(0,4,4)%B";
    let peer = || place.git(&store, ["log", format, "master"]);
    let (dk, theirs) = duel(place.choose(7, 25), || run(&mut log()), || run(&mut peer()));
    let against = Some(("git log --format", theirs.p50()));
    report.times("log", dk.p50(), against, Need::AtMost(1.0));
    memory(place, report, "log-memory", "git log", &log(), &peer());
    let line = || place.dk(&store, ["log", "--oneline", "master"]);
    let peer = || place.git(&store, ["log", "--format=%H %s", "master"]);
    let (dk, theirs) = duel(
        place.choose(7, 25),
        || run(&mut line()),
        || run(&mut peer()),
    );
    let against = Some(("git log --format='%H %s'", theirs.p50()));
    report.times("log-oneline", dk.p50(), against, Need::AtMost(1.0));
}
