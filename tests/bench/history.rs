//! Two sides of one history: what differs, and what comes of both.

use crate::inputs::sides;
use crate::place::{Place, output, run};
use crate::report::{Need, Report, duel};

const FILES: usize = 100_000;
const CHANGES: usize = 1000;

/// `dk diff` and `git diff --raw`.
pub fn diff(place: &Place, report: &mut Report) {
    let store = sides(place, FILES, CHANGES);
    let diff = || place.dk(&store, ["diff", "ours", "theirs"]);
    let peer = || place.git(&store, ["diff", "--raw", "ours", "theirs"]);
    assert_eq!(output(&mut diff()).lines().count(), 2 * CHANGES);
    assert_eq!(output(&mut peer()).lines().count(), 2 * CHANGES);
    let (dk, theirs) = duel(
        place.choose(30, 100),
        || run(&mut diff()),
        || run(&mut peer()),
    );
    let against = Some(("git diff --raw", theirs.p50()));
    report.times("diff", dk.p50(), against, Need::AtMost(1.0));
}

/// `dk merge` and `git merge-tree`, which makes a tree and no commit.
pub fn merge(place: &Place, report: &mut Report) {
    let base = sides(place, FILES, CHANGES);
    let (ours, theirs) = (place.copy(&base), place.copy(&base));
    let peer = || {
        place.git(
            theirs.path(),
            ["merge-tree", "--write-tree", "ours", "theirs"],
        )
    };
    let dry = || place.dk(ours.path(), ["merge", "--dry-run", "ours", "theirs"]);
    let (dk, git) = duel(
        place.choose(20, 100),
        || run(&mut dry()),
        || run(&mut peer()),
    );
    let against = Some(("git merge-tree --write-tree", git.p50()));
    report.times("merge-dry-run", dk.p50(), against, Need::AtMost(1.0));
    let mut number = 0;
    let merge = |level: &'static str| {
        number += 1;
        let branch = format!("m{number}");
        run(&mut place.git(ours.path(), ["branch", &branch, "ours"]));
        run(&mut place.dk(
            ours.path(),
            ["--durability", level, "merge", &branch, "theirs"],
        ))
    };
    let mut merge = merge;
    let (dk, git) = duel(place.choose(20, 100), || merge("none"), || run(&mut peer()));
    let against = Some(("git merge-tree --write-tree", git.p50()));
    report.times("merge", dk.p50(), against, Need::AtMost(1.0));
    let tree = output(&mut peer());
    let merged = output(&mut place.git(ours.path(), ["rev-parse", "m1^{tree}"]));
    assert_eq!(merged, tree, "dk and git merge differently");
    let (dk, git) = duel(
        place.choose(20, 100),
        || merge("strict"),
        || {
            run(&mut place.durable_git(
                theirs.path(),
                ["merge-tree", "--write-tree", "ours", "theirs"],
            ))
        },
    );
    let against = Some(("git merge-tree, core.fsync=all", git.p50()));
    report.times("merge-strict", dk.p50(), against, Need::Nothing);
}
