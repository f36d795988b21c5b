//! What every engine does, whatever it keeps its objects in.
//!
//! Each case runs with a store in memory and with Git repositories of either
//! hash and durability. Where there is a repository, stock git has the last
//! word on ids and on what was written.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datakit::model::{HashKind, Kind, ObjectId};
use datakit::store::engine::{Durability, Expected, HeadMove, ObjectKind, hash_object};

use crate::engine_subject::{Subject, files_below, head_move, name, noise, note};

macro_rules! contract {
    (for $module:ident, $subject:expr, $($case:ident)*) => {
        mod $module {
            use super::*;
            $(#[test] fn $case() { super::$case(&$subject); })*
        }
    };
    ($($case:ident)*) => {
        contract!(for memory, Subject::memory(), $($case)*);
        contract!(for sha1_strict, Subject::git(HashKind::Sha1, Durability::Strict), $($case)*);
        contract!(for sha1_none, Subject::git(HashKind::Sha1, Durability::None), $($case)*);
        contract!(for sha256_strict, Subject::git(HashKind::Sha256, Durability::Strict), $($case)*);
    };
}

contract! {
    objects_come_back_as_they_were
    ids_are_those_of_git
    prefixes_find_all_that_begin_so
    blobs_come_from_readers
    readers_that_lie_are_refused
    a_bulk_is_there_at_its_end_only
    a_large_batch_is_all_there
    heads_move_by_compare_and_swap
    several_heads_move_or_none
    heads_are_listed_by_prefix
    names_that_contain_each_other_exclude_each_other
    a_head_does_not_move_to_what_is_missing
    own_moves_are_told_at_once
    turns_are_taken_one_at_a_time
    writers_race_and_nothing_is_lost
}

fn objects_come_back_as_they_were(subject: &Subject) {
    let mut objects = subject.commit("one").to_vec();
    objects.extend(["", "a", "blob 1\0", "blob 5\0hello"].map(|data| subject.blob(data)));
    objects.push(subject.blob(noise(300_000)));
    objects.push(subject.blob(vec![0; 300_000]));
    let tag = format!(
        "object {}\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n\nfirst\n",
        objects[1].id
    );
    objects.push(subject.object(ObjectKind::Tag, tag));
    for object in &objects {
        assert_eq!(subject.read(&object.id), None);
        assert_eq!(subject.engine.header(&object.id).unwrap(), None);
        assert!(subject.engine.open(&object.id).unwrap().is_none());
    }
    subject.engine.write(&objects[..4]).unwrap();
    // Some of these are there already.
    subject.engine.write(&objects).unwrap();
    subject.engine.write(&[]).unwrap();
    for object in &objects {
        assert_eq!(
            subject.read(&object.id),
            Some((object.kind, object.data.clone()))
        );
        let header = subject.engine.header(&object.id).unwrap();
        assert_eq!(header, Some((object.kind, object.data.len() as u64)));
        let mut data = Vec::new();
        let mut stream = subject.engine.open(&object.id).unwrap().unwrap();
        stream.read_to_end(&mut data).unwrap();
        assert!(data == object.data, "{}", object.id);
        if subject.path().is_some() {
            let kind = subject.stock(&["cat-file", "-t", &object.id.to_hex()]);
            assert_eq!(kind.trim_end(), object.kind.name());
        }
    }
    let other = match subject.engine.hash_kind() {
        HashKind::Sha1 => HashKind::Sha256,
        HashKind::Sha256 => HashKind::Sha1,
    };
    let foreign = hash_object(other, ObjectKind::Blob, b"a").unwrap();
    assert_eq!(subject.read(&foreign), None);
}

fn ids_are_those_of_git(subject: &Subject) {
    let Some(path) = subject.path() else { return };
    for (number, data) in [vec![], b"hello\n".to_vec(), noise(70_000)]
        .iter()
        .enumerate()
    {
        let file = path.join(format!("../file{number}"));
        std::fs::write(&file, data).unwrap();
        let id = subject.stock(&["hash-object", file.to_str().unwrap()]);
        assert_eq!(subject.blob(data.clone()).id.to_hex(), id.trim_end());
        let put = subject.engine.put(&mut &data[..], None).unwrap();
        assert_eq!(put.to_hex(), id.trim_end());
    }
}

fn prefixes_find_all_that_begin_so(subject: &Subject) {
    let objects: Vec<_> = (0..300)
        .map(|number| subject.blob(format!("{number}")))
        .collect();
    let (loose, packed) = objects.split_at(50);
    subject.engine.write(loose).unwrap();
    subject.engine.write(packed).unwrap();
    for length in [0, 1, 2, 3, 4, 7, 20, 39, 40] {
        let prefix = &objects[7].id.to_hex()[..length];
        let mut expected: Vec<_> = objects
            .iter()
            .map(|object| object.id)
            .filter(|id| id.to_hex().starts_with(prefix))
            .collect();
        expected.sort();
        let upper = prefix.to_uppercase();
        for prefix in [prefix, &upper] {
            let found = subject.engine.with_prefix(prefix, 1000).unwrap();
            assert_eq!(found, expected, "{prefix:?}");
            let limited = subject.engine.with_prefix(prefix, 1).unwrap();
            assert_eq!(limited.len(), 1);
            assert!(expected.contains(&limited[0]));
        }
    }
    for nothing in ["xyz", "0g", "é", &"0".repeat(65)] {
        assert_eq!(subject.engine.with_prefix(nothing, 9).unwrap(), []);
    }
}

fn blobs_come_from_readers(subject: &Subject) {
    // Around the size from which content is spooled to disk.
    for length in [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
        let data = noise(length);
        let object = subject.blob(data.clone());
        for size in [None, Some(length as u64)] {
            let mut reader = Trickle(&data);
            assert_eq!(subject.engine.put(&mut reader, size).unwrap(), object.id);
            assert_eq!(
                subject.engine.header(&object.id).unwrap(),
                Some((ObjectKind::Blob, length as u64))
            );
        }
        assert!(subject.read(&object.id) == Some((ObjectKind::Blob, data)));
    }
}

/// Gives odd numbers of bytes, with interruptions.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.len() % 5 == 1 && !out.is_empty() {
            out[0] = self.0[0];
            self.0 = &self.0[1..];
            return Ok(1);
        }
        let count = out.len().min(self.0.len()).min(77_777);
        let (now, rest) = self.0.split_at(count);
        out[..count].copy_from_slice(now);
        self.0 = rest;
        Ok(count)
    }
}

/// Fails after what it has.
struct Breaks<'a>(&'a [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out) {
            Ok(0) => Err(io::Error::other("the line is dead")),
            result => result,
        }
    }
}

fn readers_that_lie_are_refused(subject: &Subject) {
    for length in [10, 2 << 20] {
        let data = noise(length);
        for announced in [0, length - 1, length + 1] {
            let error = subject
                .engine
                .put(&mut &data[..], Some(announced as u64))
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(
                error.to_string().contains(&announced.to_string()),
                "{error}"
            );
            let mut bulk = subject.engine.bulk().unwrap();
            let error = bulk
                .add_stream(&mut &data[..], Some(announced as u64))
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(
                bulk.finish().is_err(),
                "what is not all there is not made durable"
            );
        }
        for size in [None, Some(length as u64 + 5)] {
            let error = subject.engine.put(&mut Breaks(&data), size).unwrap_err();
            assert_eq!(error.to_string(), "the line is dead");
        }
    }
    if let Some(path) = subject.path() {
        assert_eq!(files_below(&path.join("objects")), BTreeSet::new());
    }
}

fn a_bulk_is_there_at_its_end_only(subject: &Subject) {
    for count in [0, 5, 99, 100, 101, 400] {
        let there = subject.blob(format!("there before {count}"));
        subject.engine.write(std::slice::from_ref(&there)).unwrap();
        let before = subject
            .path()
            .map(|path| files_below(&path.join("objects")));
        let mut abandoned = subject.engine.bulk().unwrap();
        let mut bulk = subject.engine.bulk().unwrap();
        let mut expected = vec![there.clone()];
        assert_eq!(bulk.add(there.kind, &there.data).unwrap(), there.id);
        for number in 0..count {
            let object = subject.blob(format!("{number} of {count}"));
            for _ in 0..1 + number % 3 {
                assert_eq!(bulk.add(object.kind, &object.data).unwrap(), object.id);
            }
            abandoned.add(object.kind, &object.data).unwrap();
            assert_eq!(subject.read(&object.id), None);
            expected.push(object);
        }
        if [5, 101].contains(&count) {
            for (length, size) in [(9, None), (1 << 20, None), (4 << 20, Some(4 << 20))] {
                let object = subject.blob([noise(length), vec![count as u8]].concat());
                let size = size.map(|size: u64| size + 1);
                for _ in 0..2 {
                    let id = bulk.add_stream(&mut &object.data[..], size).unwrap();
                    assert_eq!(id, object.id);
                }
                expected.push(object);
            }
            let [tree, commit] = subject.commit(&format!("commit {count}"));
            for object in [tree, commit] {
                bulk.add(object.kind, &object.data).unwrap();
                expected.push(object);
            }
        }
        drop(abandoned);
        let path = subject.path();
        if let Some(before) = before.filter(|_| count < 99) {
            let files = files_below(&path.as_ref().unwrap().join("objects"));
            let new: Vec<_> = files.difference(&before).collect();
            let temporary = |path: &&PathBuf| path.to_string_lossy().contains("/tmp_");
            assert!(new.iter().all(temporary), "{new:?}");
        }
        bulk.finish().unwrap();
        for object in expected {
            let found = subject.read(&object.id);
            assert!(found == Some((object.kind, object.data)), "{count}");
        }
        let Some(path) = path else { continue };
        let files = files_below(&path.join("objects"));
        assert!(
            !files
                .iter()
                .any(|path| path.to_string_lossy().contains("tmp_"))
        );
        for index in files
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "idx"))
        {
            let index = path.join("objects").join(index);
            subject.stock(&["verify-pack", index.to_str().unwrap()]);
        }
    }
}

fn a_large_batch_is_all_there(subject: &Subject) {
    let objects: Vec<_> = (0..500)
        .map(|number| subject.blob(format!("number {}", number % 450)))
        .collect();
    subject.engine.write(&objects).unwrap();
    for object in &objects {
        assert_eq!(
            subject.read(&object.id),
            Some((object.kind, object.data.clone()))
        );
    }
    let Some(path) = subject.path() else { return };
    let files = files_below(&path.join("objects"));
    assert!(files.len() < 10, "{files:?}");
    // Once more: they are known, and nothing is written.
    subject.engine.write(&objects).unwrap();
    assert_eq!(files_below(&path.join("objects")), files);
}

const MAIN: &str = "refs/heads/main";

fn heads_move_by_compare_and_swap(subject: &Subject) {
    let [one, two] = ["one", "two"].map(|message| subject.committed(message));
    let head = || subject.engine.head(&name(MAIN)).unwrap();
    assert_eq!(head(), None);
    assert_eq!(
        subject.move_to(MAIN, Expected::Id(one), Some(two)),
        Err(Kind::HeadMoved)
    );
    assert_eq!(subject.move_to(MAIN, Expected::Missing, Some(one)), Ok(()));
    assert_eq!(head(), Some(one));
    assert_eq!(
        subject.move_to(MAIN, Expected::Missing, Some(one)),
        Err(Kind::HeadMoved)
    );
    assert_eq!(
        subject.move_to(MAIN, Expected::Id(two), Some(one)),
        Err(Kind::HeadMoved)
    );
    assert_eq!(
        subject.move_to(MAIN, Expected::Id(two), None),
        Err(Kind::HeadMoved)
    );
    assert_eq!(subject.move_to(MAIN, Expected::Id(one), Some(two)), Ok(()));
    assert_eq!(subject.move_to(MAIN, Expected::Any, Some(one)), Ok(()));
    if subject.path().is_some() {
        assert_eq!(subject.stock(&["rev-parse", MAIN]).trim_end(), one.to_hex());
        subject.stock(&["pack-refs", "--all"]);
        assert_eq!(head(), Some(one));
    }
    assert_eq!(subject.move_to(MAIN, Expected::Id(one), None), Ok(()));
    assert_eq!(head(), None);
    assert_eq!(subject.move_to(MAIN, Expected::Missing, None), Ok(()));
    if subject.path().is_some() {
        assert_eq!(subject.stock(&["for-each-ref"]), "");
    }
    let error = subject
        .engine
        .move_heads(
            &[head_move(MAIN, Expected::Id(one), Some(two))],
            &note(),
            &[],
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("branch main is at no commit, not at {one}")
    );
}

fn several_heads_move_or_none(subject: &Subject) {
    let [one, two] = ["one", "two"].map(|message| subject.committed(message));
    let (a, b, tx) = ("refs/heads/a", "refs/heads/b", "refs/dk/tx/1");
    let heads = || -> Vec<_> {
        let heads = subject.engine.heads("refs/").unwrap();
        heads
            .into_iter()
            .map(|(name, id)| (name.to_string(), id))
            .collect()
    };
    let run = |moves: &[HeadMove]| {
        let result = subject.engine.move_heads(moves, &note(), &[]);
        result.map_err(|error| error.kind())
    };
    let both = [
        head_move(a, Expected::Missing, Some(one)),
        head_move(b, Expected::Missing, Some(one)),
    ];
    run(&both).unwrap();
    assert_eq!(run(&both), Err(Kind::HeadMoved));
    let before = heads();
    for half_wrong in [
        [
            head_move(a, Expected::Id(one), Some(two)),
            head_move(b, Expected::Id(two), Some(two)),
        ],
        [
            head_move(a, Expected::Id(two), None),
            head_move(b, Expected::Id(one), None),
        ],
        [
            head_move(a, Expected::Id(one), None),
            head_move(tx, Expected::Id(one), None),
        ],
    ] {
        assert_eq!(run(&half_wrong), Err(Kind::HeadMoved));
        assert_eq!(heads(), before);
    }
    // A rename with a third head.
    run(&[
        head_move(tx, Expected::Missing, Some(two)),
        head_move(a, Expected::Id(one), None),
        head_move(b, Expected::Any, Some(two)),
    ])
    .unwrap();
    assert_eq!(heads(), [(tx.into(), two), (b.into(), two)]);
    assert_eq!(run(&[]), Ok(()));
}

fn heads_are_listed_by_prefix(subject: &Subject) {
    let one = subject.committed("one");
    let all = [
        "refs/dk/tx/1",
        "refs/heads/a-b",
        "refs/heads/a/b",
        "refs/heads/ab",
        "refs/heads/b",
    ];
    for head in all {
        assert_eq!(subject.move_to(head, Expected::Any, Some(one)), Ok(()));
    }
    let listed = |prefix: &str| -> Vec<_> {
        let heads = subject.engine.heads(prefix).unwrap();
        heads
            .into_iter()
            .map(|(name, _)| name.to_string())
            .collect()
    };
    for packed in [false, true] {
        if packed && subject.path().is_some() {
            subject.stock(&["pack-refs", "--all"]);
        }
        assert_eq!(listed("refs/"), all);
        assert_eq!(listed("refs/heads/"), all[1..]);
        assert_eq!(listed("refs/heads/a"), all[1..4]);
        assert_eq!(listed("refs/heads/a/"), all[2..3]);
        assert_eq!(listed("refs/heads/c"), [""; 0]);
    }
}

fn names_that_contain_each_other_exclude_each_other(subject: &Subject) {
    let one = subject.committed("one");
    let (outer, inner) = ("refs/heads/x", "refs/heads/x/y");
    for (first, second) in [(outer, inner), (inner, outer)] {
        subject
            .move_to(first, Expected::Missing, Some(one))
            .unwrap();
        assert_eq!(
            subject.move_to(second, Expected::Missing, Some(one)),
            Err(Kind::Exists)
        );
        subject.move_to(first, Expected::Id(one), None).unwrap();
    }
    subject
        .move_to(outer, Expected::Missing, Some(one))
        .unwrap();
    assert_eq!(subject.engine.head(&name(inner)).unwrap(), None);
}

fn a_head_does_not_move_to_what_is_missing(subject: &Subject) {
    let [_, unwritten] = subject.commit("never written");
    let moved = subject.move_to(MAIN, Expected::Missing, Some(unwritten.id));
    assert_eq!(moved, Err(Kind::NotFound));
    assert_eq!(subject.engine.head(&name(MAIN)).unwrap(), None);
    // Unless it is handed over with the move.
    let fresh = subject.commit("never written");
    let moves = [head_move(MAIN, Expected::Missing, Some(unwritten.id))];
    subject.engine.move_heads(&moves, &note(), &fresh).unwrap();
    assert!(subject.read(&unwritten.id).is_some());
}

fn own_moves_are_told_at_once(subject: &Subject) {
    let [one, two] = ["one", "two"].map(|message| subject.committed(message));
    let mut changes = subject.engine.changes().unwrap();
    changes.mark_unchanged();
    assert!(!changes.has_changed().unwrap());
    subject.move_to(MAIN, Expected::Missing, Some(one)).unwrap();
    assert!(changes.has_changed().unwrap());
    let before = *changes.borrow_and_update();
    subject.move_to(MAIN, Expected::Any, Some(two)).unwrap();
    assert_ne!(*changes.borrow_and_update(), before);
}

fn turns_are_taken_one_at_a_time(subject: &Subject) {
    let inside = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let _turn = subject.engine.turn().unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(started.elapsed() < Duration::from_secs(20));
}

fn writers_race_and_nothing_is_lost(subject: &Subject) {
    let start = subject.committed("start");
    subject
        .move_to(MAIN, Expected::Missing, Some(start))
        .unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for number in 0..10 {
                    add_commit(subject, &format!("{writer}.{number}"));
                }
            });
        }
    });
    let mut head = subject.engine.head(&name(MAIN)).unwrap();
    let mut messages = BTreeSet::new();
    while let Some(id) = head {
        let text = String::from_utf8(subject.read(&id).unwrap().1).unwrap();
        messages.insert(text.lines().last().unwrap().to_owned());
        let parent = text.lines().find_map(|line| line.strip_prefix("parent "));
        head = parent.and_then(|hex| ObjectId::from_hex(hex.as_bytes()));
    }
    assert_eq!(messages.len(), 41, "{messages:?}");
}

/// Puts one more commit on top of whatever is there, however often others win.
fn add_commit(subject: &Subject, message: &str) {
    loop {
        let _turn = subject.engine.turn().unwrap();
        let head = subject.engine.head(&name(MAIN)).unwrap().unwrap();
        let [tree, root] = subject.commit(message);
        let text = String::from_utf8(root.data).unwrap();
        let text = text.replacen("author", &format!("parent {head}\nauthor"), 1);
        let objects = [tree, subject.object(ObjectKind::Commit, text)];
        subject.engine.write(&objects).unwrap();
        let moves = [head_move(MAIN, Expected::Id(head), Some(objects[1].id))];
        match subject.engine.move_heads(&moves, &note(), &objects) {
            Ok(()) => return,
            Err(error) => assert_eq!(error.kind(), Kind::HeadMoved),
        }
    }
}
