//! Heads of a Git repository as stock git sees them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use datakit::model::request::Expect;
use datakit::model::{BranchName, HashKind, ObjectId, Signature, Time};
use datakit::store::engine::{Durability, Expected, HeadMove, HeadName, MoveNote};
use datakit::store::git::refs::Refs;
use datakit::store::{Error, Result};

/// A bare repository with two commits.
pub struct Repo {
    pub dir: tempfile::TempDir,
    pub one: ObjectId,
    pub two: ObjectId,
}

impl Repo {
    pub fn new() -> Self {
        Self::with(&["--bare"])
    }

    pub fn with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = ObjectId::from_hex(&[b'0'; 40]).unwrap();
        let mut repo = Self {
            dir,
            one: id,
            two: id,
        };
        let mut init = vec!["init", "-q", "-b", "main"];
        init.extend(options);
        repo.git(&init);
        let tree = repo.git(&["hash-object", "-t", "tree", "-w", "/dev/null"]);
        let commit = |message| repo.git(&["commit-tree", "-m", message, &tree]);
        let ids =
            [commit("one"), commit("two")].map(|id| ObjectId::from_hex(id.as_bytes()).unwrap());
        [repo.one, repo.two] = ids;
        repo
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs([
                ("HOME", "/nonexistent"),
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("GIT_AUTHOR_NAME", "A"),
                ("GIT_AUTHOR_EMAIL", "a@example.org"),
                ("GIT_COMMITTER_NAME", "C"),
                ("GIT_COMMITTER_EMAIL", "c@example.org"),
            ]);
        command
    }

    pub fn git(&self, args: &[&str]) -> String {
        let out = self.command(args).output().unwrap();
        assert!(
            out.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }

    pub fn git_dir(&self) -> PathBuf {
        let dot_git = self.dir.path().join(".git");
        if dot_git.is_dir() {
            dot_git
        } else {
            self.dir.path().to_owned()
        }
    }

    pub fn refs(&self) -> Refs {
        open(&self.git_dir())
    }

    /// What git lists, `name id` a line.
    pub fn listed(&self) -> Vec<String> {
        let list = self.git(&["for-each-ref", "--format=%(refname) %(objectname)"]);
        list.lines().map(str::to_owned).collect()
    }

    pub fn fsck(&self) {
        let out = self.command(&["fsck", "--strict"]).output().unwrap();
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && !told.contains("error"), "{told}");
    }

    /// Files that no living process needs.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.git_dir()];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    waiting.push(path);
                } else if path.extension().is_some_and(|end| end == "lock")
                    || dir.ends_with("dk/locks")
                {
                    found.push(path);
                }
            }
        }
        found
    }
}

pub fn open(git_dir: &Path) -> Refs {
    Refs::open(git_dir, git_dir, HashKind::Sha1, Durability::Strict).unwrap()
}

pub fn branch(name: &str) -> HeadName {
    HeadName::branch(&BranchName::new(name).unwrap())
}

pub fn note() -> MoveNote {
    let who = Signature {
        name: b"A U Thor".to_vec(),
        email: b"a@example.org".to_vec(),
        time: Time {
            seconds: 1_700_000_000,
            offset: 60,
        },
    };
    MoveNote {
        who,
        message: "dk: a\ntest".into(),
    }
}

pub fn to(name: &str, expected: Expected, new: Option<ObjectId>) -> HeadMove {
    HeadMove {
        name: branch(name),
        expected,
        new,
    }
}

pub fn moved(refs: &Refs, moves: &[HeadMove]) -> Result<()> {
    refs.move_heads(moves, &note(), &mut || Ok(()))
}

pub fn listed(refs: &Refs) -> Vec<String> {
    let heads = refs.heads("refs/").unwrap();
    heads
        .iter()
        .map(|(name, id)| format!("{name} {id}"))
        .collect()
}

/// Waits for `done`, with a limit.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::yield_now();
    }
}

#[test]
fn heads_move_by_compare_and_swap_and_all_of_a_call_or_none() {
    let repo = Repo::new();
    let refs = repo.refs();
    let (one, two) = (repo.one, repo.two);
    moved(&refs, &[to("main", Expected::Missing, Some(one))]).unwrap();
    assert_eq!(refs.head(&branch("main")).unwrap(), Some(one));

    let error = moved(&refs, &[to("main", Expected::Missing, Some(two))]).unwrap_err();
    assert!(
        matches!(&error, Error::HeadMoved { name, expected: Expect::Unborn, actual: Some(id) }
        if name == "branch main" && *id == one)
    );
    let error = moved(&refs, &[to("main", Expected::Id(two), None)]).unwrap_err();
    assert!(matches!(error, Error::HeadMoved { expected: Expect::Head(id), .. } if id == two));
    let error = moved(&refs, &[to("x", Expected::Id(two), Some(one))]).unwrap_err();
    assert!(matches!(error, Error::HeadMoved { actual: None, .. }));

    let both = [
        to("x", Expected::Any, Some(two)),
        to("main", Expected::Id(two), Some(two)),
    ];
    assert!(matches!(moved(&refs, &both), Err(Error::HeadMoved { .. })));
    assert_eq!(refs.head(&branch("x")).unwrap(), None);
    let twice = [
        to("x", Expected::Any, Some(two)),
        to("x", Expected::Any, Some(one)),
    ];
    assert!(matches!(moved(&refs, &twice), Err(Error::Invalid(_))));

    let refused = refs.move_heads(
        &[to("main", Expected::Any, Some(two))],
        &note(),
        &mut || Err(Error::Busy("no".into())),
    );
    assert!(matches!(refused, Err(Error::Busy(_))));
    assert_eq!(refs.head(&branch("main")).unwrap(), Some(one));

    moved(
        &refs,
        &[
            to("main", Expected::Id(one), Some(two)),
            to("deep/er/x", Expected::Missing, Some(one)),
            to("absent/x", Expected::Any, None),
        ],
    )
    .unwrap();
    assert_eq!(listed(&refs), repo.listed());
    assert!(!repo.dir.path().join("refs/heads/absent").exists());
    assert_eq!(
        refs.heads("refs/heads/de").unwrap(),
        [(branch("deep/er/x"), one)]
    );
    drop(refs);
    assert_eq!(repo.leftovers(), Vec::<PathBuf>::new());
    repo.fsck();
}

#[test]
fn loose_packed_and_peeled_refs_are_listed_as_git_lists_them() {
    let repo = Repo::new();
    let (one, two) = (repo.one.to_hex(), repo.two.to_hex());
    for name in [
        "heads/a",
        "heads/a-b",
        "heads/a/b2",
        "heads/z",
        "dk/tx/1",
        "remotes/o/main",
        "stash",
    ] {
        if name != "heads/a" {
            repo.git(&["update-ref", &format!("refs/{name}"), &one]);
        }
    }
    repo.git(&["tag", "-a", "-m", "t", "v1", &one]);
    repo.git(&["symbolic-ref", "refs/remotes/o/HEAD", "refs/remotes/o/main"]);
    repo.git(&[
        "symbolic-ref",
        "refs/remotes/o/none",
        "refs/remotes/o/absent",
    ]);
    let refs = repo.refs();
    assert_eq!(listed(&refs), repo.listed());
    repo.git(&["pack-refs", "--all"]);
    assert_eq!(listed(&refs), repo.listed());
    repo.git(&["update-ref", "refs/heads/z", &two]);
    repo.git(&["update-ref", "refs/heads/new", &two]);
    repo.git(&["update-ref", "-d", "refs/dk/tx/1"]);
    fs::write(repo.dir.path().join("refs/heads/half.lock"), "").unwrap();
    fs::create_dir_all(repo.dir.path().join("refs/heads/empty/folder")).unwrap();
    assert_eq!(listed(&refs), repo.listed());
    assert_eq!(refs.all().unwrap().len(), repo.listed().len());
    assert_eq!(refs.heads("refs/heads/../..").unwrap(), []);
    assert_eq!(refs.heads("objects/").unwrap(), []);
}

#[test]
fn garbage_in_a_ref_is_an_error_that_names_it() {
    let repo = Repo::new();
    let refs = repo.refs();
    for garbage in [
        "",
        "x",
        "ref: ../../etc/passwd",
        "ref: HEAD",
        &"1".repeat(41),
        &"1".repeat(39),
    ] {
        fs::write(repo.dir.path().join("refs/heads/bad"), garbage).unwrap();
        for result in [
            refs.head(&branch("bad")).map(drop),
            refs.heads("refs/heads/").map(drop),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{garbage}: {error}");
            assert!(
                error.to_string().starts_with("branch bad is damaged: "),
                "{error}"
            );
        }
    }
    for name in ["a", "b"] {
        let other = if name == "a" { "b" } else { "a" };
        fs::write(
            repo.dir.path().join("refs/heads").join(name),
            format!("ref: refs/heads/{other}\n"),
        )
        .unwrap();
    }
    assert!(matches!(
        refs.head(&branch("a")),
        Err(Error::Corrupt { .. })
    ));
}

#[test]
fn a_branch_and_a_folder_of_branches_cannot_have_one_name() {
    let repo = Repo::new();
    let refs = repo.refs();
    let make = |name: &str| moved(&refs, &[to(name, Expected::Missing, Some(repo.one))]);
    for packed in [false, true] {
        make("a/b").unwrap();
        make("c").unwrap();
        if packed {
            repo.git(&["pack-refs", "--all", "--prune"]);
        }
        let error = make("a").unwrap_err();
        assert!(matches!(error, Error::Exists(_)));
        assert_eq!(
            error.to_string(),
            "cannot create branch a: branch a/b exists already"
        );
        let error = make("c/d/e").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot create branch c/d/e: branch c exists already"
        );
        let pair = ["n", "n/x"].map(|name| to(name, Expected::Missing, Some(repo.one)));
        assert!(matches!(moved(&refs, &pair), Err(Error::Exists(_))));
        for name in ["a/b", "c"] {
            moved(&refs, &[to(name, Expected::Id(repo.one), None)]).unwrap();
        }
        assert_eq!(refs.heads("").unwrap(), []);
        // Folders that held branches make way.
        fs::create_dir_all(repo.dir.path().join("refs/heads/a/x/y")).unwrap();
        make("a").unwrap();
        make("c/d").unwrap();
        for name in ["a", "c/d"] {
            moved(&refs, &[to(name, Expected::Any, None)]).unwrap();
        }
    }
    let left: Vec<_> = fs::read_dir(repo.dir.path().join("refs/heads"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn deleting_takes_the_packed_line_and_leaves_the_others_and_their_peeled_ids() {
    let repo = Repo::new();
    let one = repo.one.to_hex();
    for number in 0..50 {
        repo.git(&["tag", "-a", "-m", "t", &format!("v{number}"), &one]);
    }
    repo.git(&["update-ref", "refs/heads/gone/deep", &one]);
    repo.git(&["update-ref", "refs/heads/kept", &one]);
    repo.git(&["pack-refs", "--all"]);
    repo.git(&["update-ref", "refs/heads/gone/deep", &repo.two.to_hex()]);
    let before = repo.listed();
    let packed = fs::read_to_string(repo.dir.path().join("packed-refs")).unwrap();
    let refs = repo.refs();
    moved(&refs, &[to("gone/deep", Expected::Id(repo.two), None)]).unwrap();
    let kept: Vec<_> = before
        .iter()
        .filter(|line| !line.contains("gone"))
        .cloned()
        .collect();
    assert_eq!(repo.listed(), kept);
    assert_eq!(listed(&refs), kept);
    let rest: Vec<_> = packed
        .lines()
        .filter(|line| !line.contains("gone"))
        .collect();
    let now = fs::read_to_string(repo.dir.path().join("packed-refs")).unwrap();
    assert_eq!(now.lines().collect::<Vec<_>>(), rest);
    assert!(!repo.dir.path().join("refs/heads/gone").exists());
    repo.fsck();
}

#[test]
fn a_symbolic_ref_is_followed_and_what_it_names_is_moved() {
    let repo = Repo::new();
    let refs = repo.refs();
    repo.git(&["symbolic-ref", "refs/heads/alias", "refs/heads/real"]);
    moved(&refs, &[to("alias", Expected::Missing, Some(repo.one))]).unwrap();
    assert_eq!(refs.head(&branch("real")).unwrap(), Some(repo.one));
    assert_eq!(refs.head(&branch("alias")).unwrap(), Some(repo.one));
    assert_eq!(
        repo.git(&["symbolic-ref", "refs/heads/alias"]),
        "refs/heads/real"
    );
    let both = [
        to("alias", Expected::Any, Some(repo.two)),
        to("real", Expected::Any, Some(repo.two)),
    ];
    assert!(matches!(moved(&refs, &both), Err(Error::Invalid(_))));
}

#[test]
fn moves_are_logged_where_git_logs_them() {
    let repo = Repo::with(&[]);
    let refs = repo.refs();
    moved(&refs, &[to("main", Expected::Missing, Some(repo.one))]).unwrap();
    moved(&refs, &[to("main", Expected::Id(repo.one), Some(repo.two))]).unwrap();
    moved(&refs, &[to("side/x", Expected::Missing, Some(repo.two))]).unwrap();
    let log = repo.git(&["reflog", "show", "--format=%H %gn <%ge> %gs", "main"]);
    let line = |id: ObjectId| format!("{id} A U Thor <a@example.org> dk: a test");
    assert_eq!(log, format!("{}\n{}", line(repo.two), line(repo.one)));
    assert_eq!(
        repo.git(&["reflog", "show", "--format=%H %gn <%ge> %gs", "HEAD"]),
        log
    );
    assert!(
        repo.git(&["reflog", "show", "side/x"])
            .contains("side/x@{0}")
    );
    moved(&refs, &[to("side/x", Expected::Any, None)]).unwrap();
    assert!(!repo.git_dir().join("logs/refs/heads/side").exists());
    assert!(refs.is_checked_out(&branch("main")).unwrap());
    assert!(!refs.is_checked_out(&branch("side/x")).unwrap());

    let bare = Repo::new();
    moved(
        &bare.refs(),
        &[to("main", Expected::Missing, Some(bare.one))],
    )
    .unwrap();
    assert!(!bare.dir.path().join("logs").exists());
    assert!(!bare.refs().is_checked_out(&branch("main")).unwrap());
    let tree = tempfile::tempdir().unwrap();
    let place = tree.path().join("w");
    bare.git(&[
        "worktree",
        "add",
        "-q",
        "-b",
        "topic",
        place.to_str().unwrap(),
        &bare.one.to_hex(),
    ]);
    assert!(bare.refs().is_checked_out(&branch("topic")).unwrap());
    bare.git(&["config", "core.logAllRefUpdates", "always"]);
    moved(&bare.refs(), &[to("main", Expected::Any, Some(bare.two))]).unwrap();
    assert!(bare.git(&["reflog", "show", "main"]).contains("dk: a test"));
}

#[test]
fn ten_thousand_branches_are_listed_found_and_moved() {
    let repo = Repo::new();
    let dir = repo.dir.path();
    let refs = Refs::open(dir, dir, HashKind::Sha1, Durability::None).unwrap();
    let name = |n: usize| format!("b/{:02}/{n:04}", n % 100);
    let mut names: Vec<_> = (0..10_000).map(name).collect();
    names.sort();
    let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for name in &names {
        packed += &format!("{} refs/heads/{name}\n", repo.one);
    }
    fs::write(dir.join("packed-refs"), packed).unwrap();
    // Some are loose too, and newer.
    let some: Vec<_> = names.iter().step_by(20).collect();
    let moves = |old, new| -> Vec<HeadMove> {
        let each = some.iter().map(|name| to(name, Expected::Id(old), new));
        each.collect()
    };
    moved(&refs, &moves(repo.one, Some(repo.two))).unwrap();
    let began = Instant::now();
    let heads = refs.heads("refs/heads/").unwrap();
    println!("listed in {:?}", began.elapsed());
    assert_eq!(heads.len(), 10_000);
    assert_eq!(heads.iter().filter(|(_, id)| *id == repo.two).count(), 500);
    let began = Instant::now();
    for (name, id) in heads {
        assert_eq!(refs.head(&name).unwrap(), Some(id));
    }
    println!("each read in {:?}", began.elapsed());
    assert_eq!(listed(&refs), repo.listed());
    moved(&refs, &moves(repo.two, None)).unwrap();
    assert_eq!(repo.listed().len(), 9_500);
    assert_eq!(listed(&refs), repo.listed());
}

#[test]
fn a_lock_of_git_is_respected_and_named() {
    let repo = Repo::new();
    let refs = repo.refs();
    let lock = repo.dir.path().join("refs/heads/main.lock");
    fs::write(&lock, "").unwrap();
    let waiting = {
        let (one, git_dir) = (repo.one, repo.git_dir());
        thread::spawn(move || moved(&open(&git_dir), &[to("main", Expected::Missing, Some(one))]))
    };
    let error = moved(&refs, &[to("main", Expected::Missing, Some(repo.two))]).unwrap_err();
    assert!(
        matches!(&error, Error::Busy(text) if text.contains("main.lock")),
        "{error}"
    );
    assert!(waiting.join().unwrap().is_err());
    assert!(lock.exists(), "it is not ours to remove");
    // One that goes away in time is waited for.
    let (one, git_dir) = (repo.one, repo.git_dir());
    let waiting =
        thread::spawn(move || moved(&open(&git_dir), &[to("main", Expected::Missing, Some(one))]));
    until("the mover to stage its lock", || {
        fs::read_dir(repo.dir.path().join("dk/locks"))
            .unwrap()
            .count()
            >= 3
    });
    fs::remove_file(&lock).unwrap();
    waiting.join().unwrap().unwrap();
    // And ours keeps git out.
    refs.move_heads(
        &[to("main", Expected::Any, Some(repo.two))],
        &note(),
        &mut || {
            let update = repo
                .command(&["update-ref", "refs/heads/main", &repo.one.to_hex()])
                .output()
                .unwrap();
            assert!(String::from_utf8_lossy(&update.stderr).contains("main.lock"));
            assert!(!update.status.success());
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(repo.git(&["rev-parse", "main"]), repo.two.to_hex());
}

#[test]
fn a_read_only_store_reads_and_refuses_to_write() {
    let repo = Repo::new();
    repo.git(&["update-ref", "refs/heads/main", &repo.one.to_hex()]);
    if rustix_is_root() {
        println!("not shown: permissions do not bind root");
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let folder = repo.dir.path().join("refs");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    let refs = repo.refs();
    assert!(refs.is_read_only());
    assert_eq!(refs.head(&branch("main")).unwrap(), Some(repo.one));
    assert!(matches!(refs.turn().map(drop), Err(Error::ReadOnly(_))));
    let refused = moved(&refs, &[to("main", Expected::Any, Some(repo.two))]);
    assert!(matches!(refused, Err(Error::ReadOnly(_))));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
}

fn rustix_is_root() -> bool {
    let probe = tempfile::tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(probe.path(), fs::Permissions::from_mode(0o555)).unwrap();
    fs::write(probe.path().join("x"), "").is_ok()
}
