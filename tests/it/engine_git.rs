//! What is particular to a Git repository: opening and making it, collectors,
//! alternates, linked work trees, and stock git changing things beside.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use datakit::model::{HashKind, Kind, ObjectId};
use datakit::store::Error;
use datakit::store::engine::{Durability, Engine as _, Expected, Object, ObjectKind};
use datakit::store::git::Git;

use crate::engine_subject::{Subject, files_below, head_move, name, noise, note, stock};

pub const MAIN: &str = "refs/heads/main";
pub const MIB: usize = 1 << 20;

pub fn subject() -> Subject {
    Subject::git(HashKind::Sha1, Durability::None)
}

pub fn open(path: &Path) -> Git {
    Git::open(path, Durability::None, false).unwrap()
}

fn refusal(result: Result<Git, Error>) -> Error {
    match result {
        Ok(git) => panic!("{} was opened", git.path().display()),
        Err(error) => error,
    }
}

pub fn loose_path(subject: &Subject, id: &ObjectId) -> PathBuf {
    let hex = id.to_hex();
    let objects = subject.path().unwrap().join("objects");
    objects.join(&hex[..2]).join(&hex[2..])
}

/// Makes a file look as if nobody had touched it for long.
fn age(path: &Path) {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = fs::File::options().read(true).open(path).unwrap();
    file.set_modified(long_ago).unwrap();
}

fn is_old(path: &Path) -> bool {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    modified.elapsed().unwrap() > Duration::from_secs(1000)
}

pub fn packs(subject: &Subject) -> Vec<PathBuf> {
    let dir = subject.path().unwrap().join("objects/pack");
    let files = files_below(&dir).into_iter().map(|path| dir.join(path));
    files
        .filter(|path| path.extension().is_some_and(|end| end == "pack"))
        .collect()
}

/// Gives a branch to what must not be collected.
pub fn keep(subject: &Subject, blobs: &[&Object]) -> ObjectId {
    let mut tree = Vec::new();
    for (number, blob) in blobs.iter().enumerate() {
        tree.extend(format!("100644 {number:04}\0").bytes());
        tree.extend(blob.id.as_bytes());
    }
    let tree = subject.object(ObjectKind::Tree, tree);
    let commit = format!(
        "tree {}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nkeep\n",
        tree.id
    );
    let commit = subject.object(ObjectKind::Commit, commit);
    let id = commit.id;
    let written: Vec<_> = blobs
        .iter()
        .copied()
        .cloned()
        .chain([tree, commit])
        .collect();
    subject.engine.write(&written).unwrap();
    subject.move_to(MAIN, Expected::Any, Some(id)).unwrap();
    id
}

#[test]
fn init_makes_what_git_takes_for_a_bare_repository() {
    let dir = tempfile::tempdir().unwrap();
    for (hash, version) in [(HashKind::Sha1, "0"), (HashKind::Sha256, "1")] {
        let path = dir.path().join("deep/er").join(hash.name());
        for _ in 0..2 {
            let git = Git::init(&path, hash).unwrap();
            assert_eq!(git.path(), path);
            assert_eq!(git.hash_kind(), hash);
        }
        let asked = ["rev-parse", "--is-bare-repository", "--show-object-format"];
        assert_eq!(stock(&path, &asked), format!("true\n{}\n", hash.name()));
        let config = |key| stock(&path, &["config", key]).trim_end().to_owned();
        assert_eq!(config("core.repositoryformatversion"), version);
        assert_eq!(config("core.filesRefLockTimeout"), "5000");
        let head = fs::read_to_string(path.join("HEAD")).unwrap();
        assert_eq!(head, "ref: refs/heads/master\n");
        stock(&path, &["fsck", "--strict"]);
    }
    // An attempt that was killed is completed; other people's files are not touched.
    let half = dir.path().join("half");
    fs::create_dir_all(half.join("objects/info")).unwrap();
    Git::init(&half, HashKind::Sha1).unwrap();
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letter"), "dear").unwrap();
    assert_eq!(
        refusal(Git::init(&full, HashKind::Sha1)).kind(),
        Kind::Denied
    );
    assert_eq!(files_below(&full), [PathBuf::from("letter")].into());
    let file = full.join("letter");
    assert_eq!(
        refusal(Git::init(&file, HashKind::Sha1)).kind(),
        Kind::NotDirectory
    );
}

#[test]
fn the_nearest_repository_is_found_and_others_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    stock(dir.path(), &["init", "-q", "work"]);
    let below = work.join("a/b");
    fs::create_dir_all(&below).unwrap();
    let discover = |path: &Path| Git::open(path, Durability::None, true);
    assert_eq!(discover(&below).unwrap().path(), work);
    assert_eq!(discover(&work).unwrap().path(), work);
    assert_eq!(open(&work.join(".git")).path(), work);

    for (error, path) in [
        (refusal(Git::open(&below, Durability::None, false)), &below),
        (
            refusal(Git::open(&work.join("none"), Durability::None, false)),
            &work.join("none"),
        ),
    ] {
        assert_eq!(error.kind(), Kind::NotFound);
        let expected = format!("a repository at {} does not exist", path.display());
        assert_eq!(error.to_string(), expected);
    }

    stock(
        dir.path(),
        &["init", "-q", "--bare", "--ref-format=reftable", "table.git"],
    );
    let error = refusal(Git::open(
        &dir.path().join("table.git"),
        Durability::None,
        false,
    ));
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("reftable"), "{error}");
}

#[test]
fn a_repository_of_another_user_is_refused() {
    let subject = subject();
    let path = subject.path().unwrap();
    // Only the superuser can give files away.
    if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
        println!("skipped: needs the superuser");
        return;
    }
    let error = refusal(Git::open(&path, Durability::None, false));
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );
}

#[test]
fn writing_what_exists_makes_it_young() {
    let subject = subject();
    let path = subject.path().unwrap();
    let blob = subject.blob("again");
    let write = || subject.engine.write(std::slice::from_ref(&blob)).unwrap();
    write();
    let loose = loose_path(&subject, &blob.id);
    assert_eq!(
        fs::metadata(&loose).unwrap().permissions().mode() & 0o777,
        0o444
    );
    for again in [
        &write as &dyn Fn(),
        &|| _ = subject.engine.put(&mut &blob.data[..], None).unwrap(),
        &|| {
            let mut bulk = subject.engine.bulk().unwrap();
            bulk.add(blob.kind, &blob.data).unwrap();
            bulk.finish().unwrap();
        },
    ] {
        age(&loose);
        again();
        assert!(!is_old(&loose));
    }

    keep(&subject, &[&blob]);
    subject.stock(&["repack", "-adq"]);
    subject.stock(&["prune-packed"]);
    assert!(!loose.exists());
    // An engine that knew it loose finds the pack when it reads.
    assert!(subject.read(&blob.id).is_some());
    let [pack] = &packs(&subject)[..] else {
        panic!("one pack")
    };
    age(pack);
    write();
    assert!(!loose.exists(), "it is in the pack");
    assert!(!is_old(pack));

    // Objects in a cruft pack have times of their own: they are written anew.
    subject.move_to(MAIN, Expected::Any, None).unwrap();
    subject.stock(&["repack", "-dq", "--cruft", "--cruft-expiration=2.weeks.ago"]);
    assert!(
        files_below(&path)
            .iter()
            .any(|path| path.extension().is_some_and(|end| end == "mtimes"))
    );
    assert!(subject.read(&blob.id).is_some());
    write();
    assert!(loose.exists());
}

#[test]
fn readers_follow_what_collectors_do() {
    let subject = subject();
    let path = subject.path().unwrap();
    let blobs: Vec<_> = (0..50)
        .map(|number| subject.blob(format!("blob {number}")))
        .collect();
    keep(&subject, &blobs.iter().collect::<Vec<_>>());
    let other = open(&path);
    let mut buffer = Vec::new();
    for round in 0..4 {
        match round {
            0 => subject.stock(&["repack", "-dq"]),
            1 => subject.stock(&["gc", "-q", "--prune=now"]),
            2 => subject.stock(&["multi-pack-index", "write"]),
            _ => subject.stock(&["repack", "-adq", "--write-midx"]),
        };
        for blob in &blobs {
            assert!(subject.read(&blob.id).is_some(), "{round}");
            assert!(
                other.find(&blob.id, &mut buffer).unwrap().is_some(),
                "{round}"
            );
        }
        // What another process wrote, loose and packed.
        let new = subject.blob(format!("new in round {round}"));
        other.write(std::slice::from_ref(&new)).unwrap();
        assert!(subject.read(&new.id).is_some());
        let many: Vec<_> = (0..300)
            .map(|number| subject.blob(format!("{round}.{number}")))
            .collect();
        other.write(&many).unwrap();
        for blob in &many {
            assert!(subject.read(&blob.id).is_some());
        }
    }
    let gone = subject.blob("new in round 0");
    subject.stock(&["gc", "-q", "--prune=now"]);
    assert_eq!(subject.read(&gone.id), None);
    assert_eq!(subject.engine.header(&gone.id).unwrap(), None);
}

#[test]
fn more_packs_than_a_handful_are_read_and_written() {
    let subject = subject();
    let blobs: Vec<_> = (0..80)
        .map(|round| {
            let mut bulk = subject.engine.bulk().unwrap();
            for number in 0..120 {
                bulk.add(ObjectKind::Blob, format!("{round}.{number}").as_bytes())
                    .unwrap();
            }
            bulk.finish().unwrap();
            subject.blob(format!("{round}.7"))
        })
        .collect();
    assert_eq!(packs(&subject).len(), 80);
    let fresh = open(&subject.path().unwrap());
    for blob in &blobs {
        assert!(subject.read(&blob.id).is_some());
        assert!(fresh.header(&blob.id).unwrap().is_some());
    }
}

/// Loose, and in packs by deltas that name their base by place or by id.
#[test]
fn headers_are_gits() {
    let subject = subject();
    let versions: Vec<String> = (0..60)
        .map(|version| {
            let lines = (0..400).map(|line| match line % 60 < version {
                true => format!("line {line} is new\n"),
                false => format!("line {line}\n"),
            });
            lines.collect()
        })
        .collect();
    let mut blobs: Vec<_> = versions.into_iter().map(|it| subject.blob(it)).collect();
    blobs.push(subject.blob(""));
    subject.engine.write(&blobs).unwrap();
    keep(&subject, &blobs.iter().collect::<Vec<_>>());
    let compare = || {
        let format = "--batch-check=%(objectname) %(objecttype) %(objectsize)";
        let all = subject.stock(&["cat-file", "--batch-all-objects", format]);
        let engine = open(&subject.path().unwrap());
        for line in all.lines() {
            let (id, wanted) = line.split_once(' ').unwrap();
            let id = ObjectId::from_hex(id.as_bytes()).unwrap();
            let (kind, size) = engine.header(&id).unwrap().unwrap();
            assert_eq!(format!("{} {size}", kind.name()), wanted, "{id}");
        }
        all.lines().count()
    };
    assert_eq!(compare(), 63);
    for by_place in ["true", "false"] {
        let option = format!("repack.useDeltaBaseOffset={by_place}");
        subject.stock(&[
            "-c",
            &option,
            "repack",
            "-q",
            "-a",
            "-d",
            "-f",
            "--depth=50",
        ]);
        let chains = subject.stock(&["verify-pack", "-v", packs(&subject)[0].to_str().unwrap()]);
        assert!(chains.contains("chain length = 9"), "{chains}");
        assert_eq!(compare(), 63);
    }
}

#[test]
fn a_move_brings_back_what_a_collector_took() {
    let subject = subject();
    let objects = subject.commit("one");
    subject.engine.write(&objects).unwrap();
    for object in &objects {
        fs::remove_file(loose_path(&subject, &object.id)).unwrap();
    }
    let moves = [head_move(MAIN, Expected::Missing, Some(objects[1].id))];
    subject
        .engine
        .move_heads(&moves, &note(), &objects)
        .unwrap();
    assert_eq!(subject.stock(&["log", "--format=%s", MAIN]), "one\n");
}

#[test]
fn alternates_are_read_and_not_written() {
    let shared = subject();
    let [tree, _] = shared.commit("one");
    let one = shared.committed("one");
    shared.move_to(MAIN, Expected::Missing, Some(one)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (shared.path().unwrap(), dir.path().join("clone.git"));
    let arguments = [
        "clone",
        "-q",
        "--bare",
        "--shared",
        from.to_str().unwrap(),
        to.to_str().unwrap(),
    ];
    stock(dir.path(), &arguments);
    let engine = open(&to);
    let mut buffer = Vec::new();
    assert!(engine.find(&one, &mut buffer).unwrap().is_some());
    assert_eq!(engine.with_prefix(&one.to_hex()[..9], 2).unwrap(), [one]);
    // There already, in the alternate.
    engine.write(std::slice::from_ref(&tree)).unwrap();
    let mut large = noise(9 * MIB);
    let id = shared.engine.put(&mut &large[..], None).unwrap();
    let mut stream = engine.open(&id).unwrap().unwrap();
    let mut data = Vec::new();
    stream.read_to_end(&mut data).unwrap();
    assert!(data == large);
    let own = files_below(&to.join("objects"));
    assert_eq!(own, [PathBuf::from("info/alternates")].into());
    // An alternate that comes later is noticed at a miss.
    let later = subject();
    large[0] ^= 1;
    let id = later.engine.put(&mut &large[..], None).unwrap();
    assert_eq!(engine.header(&id).unwrap(), None);
    let alternates = to.join("objects/info/alternates");
    let text = format!(
        "{}{}/objects\n",
        fs::read_to_string(&alternates).unwrap(),
        later.path().unwrap().display()
    );
    fs::write(&alternates, text).unwrap();
    assert!(engine.header(&id).unwrap().is_some());
}

#[test]
fn a_linked_work_tree_shares_objects_and_heads() {
    let dir = tempfile::tempdir().unwrap();
    let (main, linked) = (dir.path().join("main"), dir.path().join("linked"));
    stock(dir.path(), &["init", "-q", "-b", "main", "main"]);
    stock(&main, &["commit", "-q", "--allow-empty", "-m", "one"]);
    stock(&main, &["worktree", "add", "-q", "-b", "side", "../linked"]);
    let (engine, other) = (open(&linked), open(&main));
    assert_eq!(engine.path(), linked);
    let head = engine.head(&name("refs/heads/side")).unwrap().unwrap();
    assert_eq!(other.head(&name(MAIN)).unwrap(), Some(head));
    for engine in [&engine, &other] {
        for (branch, expected) in [("main", true), ("side", true), ("other", false)] {
            let branch = name(&format!("refs/heads/{branch}"));
            assert_eq!(
                engine.is_checked_out(&branch).unwrap(),
                expected,
                "{branch}"
            );
        }
    }
    let id = engine.put(&mut &b"from the linked one"[..], None).unwrap();
    assert!(other.header(&id).unwrap().is_some());
    assert!(!engine.is_read_only());
}

#[test]
fn foreign_moves_are_noticed() {
    let subject = subject();
    let one = subject.committed("one");
    let mut changes = subject.engine.changes().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let hex = one.to_hex();
    for step in [
        &["update-ref", "refs/heads/foreign", hex.as_str()][..],
        &["pack-refs", "--all"],
        &["update-ref", "-d", "refs/heads/foreign"],
    ] {
        changes.mark_unchanged();
        subject.stock(step);
        runtime.block_on(async {
            let limit = Duration::from_secs(10);
            tokio::time::timeout(limit, changes.changed())
                .await
                .unwrap()
                .unwrap();
        });
    }
    assert_eq!(
        subject.engine.head(&name("refs/heads/foreign")).unwrap(),
        None
    );
}

#[test]
fn replaced_objects_are_read_as_they_are() {
    let subject = subject();
    let [one, two] = ["one", "two"].map(|text| subject.committed(text));
    subject.stock(&["replace", &one.to_hex(), &two.to_hex()]);
    let engine = open(&subject.path().unwrap());
    let mut buffer = Vec::new();
    engine.find(&one, &mut buffer).unwrap();
    assert!(buffer.ends_with(b"one\n"));
}

#[test]
fn sharing_is_as_git_shares() {
    let subject = subject();
    subject.stock(&["config", "core.sharedRepository", "0660"]);
    let engine = open(&subject.path().unwrap());
    let id = engine.put(&mut &b"shared"[..], None).unwrap();
    let loose = loose_path(&subject, &id);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&loose), 0o444);
    assert_eq!(mode(loose.parent().unwrap()) & 0o2770, 0o2770);
}
