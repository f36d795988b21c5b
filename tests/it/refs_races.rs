//! Heads of a Git repository while others move them too, and die.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use datakit::model::{HashKind, ObjectId};
use datakit::store::Error;
use datakit::store::engine::{Durability, Expected, HeadMove};
use datakit::store::git::refs::Refs;

use crate::refs::{Repo, branch, moved, note, open, to, until};

// Children of this test binary, to be killed.

/// Starts `child` in a process of its own and waits until it says `ready`.
fn child(repo: &Repo, role: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["refs_races::in_a_child", "--exact", "--nocapture"])
        .env("DK_TEST_ROLE", role)
        .env("DK_TEST_REPO", repo.git_dir())
        .env("DK_TEST_IDS", format!("{} {}", repo.one, repo.two))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines
        .map_while(|line| line.ok())
        .any(|line| line.ends_with("ready"));
    assert!(ready, "{role} did not start");
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Not a test by itself: what [`child`] runs.
#[test]
fn in_a_child() {
    let (Ok(role), Ok(dir), Ok(ids)) = (
        std::env::var("DK_TEST_ROLE"),
        std::env::var("DK_TEST_REPO"),
        std::env::var("DK_TEST_IDS"),
    ) else {
        return;
    };
    let refs = open(Path::new(&dir));
    let ids: Vec<_> = ids
        .split(' ')
        .map(|id| ObjectId::from_hex(id.as_bytes()).unwrap())
        .collect();
    let hold = || -> ! {
        println!("ready");
        loop {
            thread::park();
        }
    };
    match role.as_str() {
        "hold" => {
            let moves = [
                to("main", Expected::Any, Some(ids[0])),
                to("old", Expected::Any, None),
            ];
            refs.move_heads(&moves, &note(), &mut || hold()).unwrap();
        }
        "turn" => {
            let _turn = refs.turn().unwrap();
            hold();
        }
        "together" => {
            // Without syncs most of the time goes into what is to be cut short.
            let dir = Path::new(&dir);
            let refs = Refs::open(dir, dir, HashKind::Sha1, Durability::None).unwrap();
            for round in 0.. {
                let new = ids[round % 2];
                let mut moves: Vec<_> = TOGETHER.map(|n| together(n, Some(new))).collect();
                moves.push(to("odd", Expected::Any, (round % 2 == 1).then_some(new)));
                moved(&refs, &moves).unwrap();
                if round == 0 {
                    println!("ready");
                }
            }
        }
        other => panic!("{other}"),
    }
}

#[test]
fn locks_of_a_killed_process_are_no_locks() {
    let repo = Repo::new();
    repo.git(&["update-ref", "refs/heads/old", &repo.one.to_hex()]);
    repo.git(&["pack-refs", "--all"]);
    let holder = child(&repo, "hold");
    let locks = [
        "refs/heads/main.lock",
        "refs/heads/old.lock",
        "packed-refs.lock",
    ];
    for lock in locks {
        assert!(repo.dir.path().join(lock).exists(), "{lock}");
    }
    // Alive, it is respected: nothing of it goes, and git is kept out.
    let refs = repo.refs();
    moved(&refs, &[to("other", Expected::Any, Some(repo.one))]).unwrap();
    assert!(locks.iter().all(|lock| repo.dir.path().join(lock).exists()));
    assert!(
        !repo
            .command(&["update-ref", "refs/heads/main", &repo.one.to_hex()])
            .status()
            .unwrap()
            .success()
    );
    kill(holder);
    // Met by a process that swept before, and cleared for git too.
    moved(&refs, &[to("main", Expected::Missing, Some(repo.two))]).unwrap();
    assert!(!locks.iter().any(|lock| repo.dir.path().join(lock).exists()));
    assert_eq!(refs.head(&branch("old")).unwrap(), Some(repo.one));
    drop(refs);

    // Cleared by whoever writes first, though nobody meets it.
    kill(child(&repo, "hold"));
    let refs = repo.refs();
    drop(refs.turn().unwrap());
    drop(refs);
    assert_eq!(repo.leftovers(), Vec::<PathBuf>::new());

    let began = Instant::now();
    kill(child(&repo, "turn"));
    drop(repo.refs().turn().unwrap());
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "a dead holder's turn is over"
    );
    repo.fsck();
}

/// Enough of them for a kill to fall among their moves.
const TOGETHER: std::ops::Range<usize> = 0..50;

fn together(number: usize, new: Option<ObjectId>) -> HeadMove {
    to(&format!("t/{number}"), Expected::Any, new)
}

#[test]
fn several_heads_move_together_whenever_the_mover_is_killed() {
    let repo = Repo::new();
    for round in 0..8 {
        let mover = child(&repo, "together");
        // The first of them goes; somewhere among the others the mover dies.
        let first = repo.dir.path().join("refs/heads/t/0");
        let before = fs::read(&first).unwrap();
        until("a move", || fs::read(&first).unwrap() != before);
        let end = Instant::now() + Duration::from_micros(60 * round);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        kill(mover);
        let refs = repo.refs();
        drop(refs.turn().unwrap());
        let mut heads = refs.heads("refs/heads/t/").unwrap();
        assert_eq!(heads.len(), TOGETHER.len(), "round {round}");
        heads.dedup_by_key(|(_, id)| *id);
        assert_eq!(heads.len(), 1, "round {round}: {heads:?}");
        let odd = (heads[0].1 == repo.two).then_some(repo.two);
        assert_eq!(refs.head(&branch("odd")).unwrap(), odd, "round {round}");
        drop(refs);
        assert_eq!(repo.leftovers(), Vec::<PathBuf>::new());
    }
    repo.fsck();
}

#[test]
fn writers_of_every_kind_lose_nothing() {
    const EACH: usize = 40;
    let repo = Repo::new();
    let tree = repo.git(&["rev-parse", &format!("{}^{{tree}}", repo.one)]);
    repo.git(&["update-ref", "refs/heads/main", &repo.one.to_hex()]);
    let commit = |parent: &str, message: &str| {
        repo.git(&["commit-tree", "-p", parent, "-m", message, &tree])
    };
    let (refs, others) = (repo.refs(), repo.refs());
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let mut writers = Vec::new();
        for (writer, refs) in [(0, &refs), (1, &refs), (2, &others)] {
            let commit = &commit;
            writers.push(scope.spawn(move || {
                for number in 0..EACH {
                    loop {
                        let turn = (writer != 1).then(|| refs.turn().unwrap());
                        let old = refs.head(&branch("main")).unwrap().unwrap();
                        let new = commit(&old.to_hex(), &format!("dk {writer} {number}"));
                        let new = ObjectId::from_hex(new.as_bytes());
                        match moved(refs, &[to("main", Expected::Id(old), new)]) {
                            Ok(()) => break,
                            Err(Error::HeadMoved { .. }) => drop(turn),
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            }));
        }
        let (repo, commit) = (&repo, &commit);
        writers.push(scope.spawn(move || {
            for number in 0..EACH {
                loop {
                    let old = repo.git(&["rev-parse", "refs/heads/main"]);
                    let new = commit(&old, &format!("git {number}"));
                    let update = repo
                        .command(&["update-ref", "refs/heads/main", &new, &old])
                        .output();
                    if update.unwrap().status.success() {
                        break;
                    }
                }
            }
        }));
        // Meanwhile refs are packed, and branches come and go in both.
        let (done, refs) = (&done, &refs);
        scope.spawn(move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = repo.command(&["pack-refs", "--all"]).output();
                moved(refs, &[to("side/x", Expected::Any, Some(repo.one))]).unwrap();
                let _ = repo.command(&["pack-refs", "--all"]).output();
                moved(refs, &[to("side/x", Expected::Any, None)]).unwrap();
                assert_eq!(refs.head(&branch("side/x")).unwrap(), None);
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let log = repo.git(&["log", "--format=%s", "main"]);
    let kept: BTreeSet<_> = log.lines().collect();
    assert_eq!(kept.len(), 4 * EACH + 1);
    assert_eq!(log.lines().count(), 4 * EACH + 1);
    drop((refs, others));
    assert_eq!(repo.leftovers(), Vec::<PathBuf>::new());
    repo.fsck();
}

#[test]
fn own_and_foreign_moves_are_noticed() {
    let repo = Repo::new();
    let refs = repo.refs();
    let mut changes = refs.changes().unwrap();
    let before = *changes.borrow_and_update();
    moved(&refs, &[to("main", Expected::Missing, Some(repo.one))]).unwrap();
    assert_ne!(*changes.borrow_and_update(), before);

    let (one, two) = (repo.one.to_hex(), repo.two.to_hex());
    let foreign: [&[&str]; 7] = [
        &["update-ref", "refs/heads/main", &two],
        &["branch", "deep/new/branch", &one],
        &["update-ref", "refs/heads/deep/new/other", &one],
        &["pack-refs", "--all"],
        &["branch", "-D", "deep/new/branch"],
        &["update-ref", "refs/dk/tx/1", &one],
        &["update-ref", "-d", "refs/dk/tx/1"],
    ];
    for command in foreign {
        let mut seen = *changes.borrow_and_update();
        repo.git(command);
        until(&format!("notice of {command:?}"), || {
            let now = *changes.borrow_and_update();
            std::mem::replace(&mut seen, now) != now
        });
    }
    // Reading is not moving: no event of ours makes another one.
    quiet(&mut changes);
    for _ in 0..100 {
        refs.heads("refs/").unwrap();
        assert!(!changes.has_changed().unwrap());
    }
}

/// Waits until nothing more is noticed for longer than the poll takes.
fn quiet(changes: &mut tokio::sync::watch::Receiver<u64>) {
    let mut since = Instant::now();
    until("quiet", || {
        if changes.has_changed().unwrap() {
            changes.borrow_and_update();
            since = Instant::now();
        }
        since.elapsed() > Duration::from_millis(1200)
    });
}
