//! Damage of every sort, in memory, and what is said about it.

use std::sync::Arc;

use datakit::model::{Entry, HashKind, Mode, ObjectId};
use datakit::store::engine::{Object, ObjectKind, hash_object};
use datakit::store::fsck::fsck;
use datakit::store::memory::Memory;
use datakit::store::objects::{Objects, push_entry};

/// Blobs up to this long are read in one go.
const SMALL: usize = 256 << 10;

struct Case(Objects);

const WHO: &str = "A <a@b> 1 +0000";

impl Case {
    fn new() -> Self {
        Self(Objects::new(Arc::new(Memory::new(HashKind::Sha1))))
    }

    /// Writes an object, under its own id or another.
    fn add(&self, kind: ObjectKind, data: &[u8], id: Option<ObjectId>) -> ObjectId {
        let id = id.unwrap_or_else(|| hash_object(HashKind::Sha1, kind, data).unwrap());
        let data = data.to_vec();
        self.0.engine.write(&[Object { id, kind, data }]).unwrap();
        id
    }

    fn tree(&self, entries: &[(&str, u32, ObjectId)]) -> ObjectId {
        let mut raw = Vec::new();
        for (name, mode, id) in entries {
            let (mode, id) = (Mode(*mode), *id);
            push_entry(&mut raw, name.as_bytes(), &Entry { mode, id });
        }
        self.add(ObjectKind::Tree, &raw, None)
    }

    fn faults(&self, id: ObjectId) -> Vec<String> {
        let refs = [
            (b"refs/heads/a".to_vec(), id),
            (b"refs/heads/b".to_vec(), id),
        ];
        let faults = fsck(&self.0, &refs, &()).unwrap();
        faults
            .into_iter()
            .map(|fault| {
                format!(
                    "{}: {}",
                    &fault.what[..12.min(fault.what.len())],
                    fault.message
                )
            })
            .collect()
    }
}

fn id(byte: u8) -> ObjectId {
    ObjectId::from_bytes(&[byte; 20]).unwrap()
}

#[test]
fn what_is_sound_has_no_fault() {
    let case = Case::new();
    let large = case.add(ObjectKind::Blob, &vec![7; SMALL * 3], None);
    let blob = case.add(ObjectKind::Blob, b"", None);
    let empty = case.0.empty_tree();
    let tree = case.tree(&[
        ("a", 0o100_644, blob),
        ("a-b", 0o100_755, blob),
        ("b", 0o040_000, empty),
        ("b0", 0o120_000, large),
        ("c", 0o100_664, blob),
        ("d", 0o160_000, id(3)),
    ]);
    let root = format!("tree {tree}\nauthor {WHO}\ncommitter {WHO}\n\n");
    let root = case.add(ObjectKind::Commit, root.as_bytes(), None);
    let text =
        format!("tree {tree}\nparent {root}\nauthor {WHO}\ncommitter {WHO}\nencoding x\n\nhi");
    let commit = case.add(ObjectKind::Commit, text.as_bytes(), None);
    let text = format!("object {commit}\ntype commit\ntag v\ntagger {WHO}\n\nhi");
    let tag = case.add(ObjectKind::Tag, text.as_bytes(), None);
    assert_eq!(case.faults(tag), [""; 0]);
    assert_eq!(case.faults(empty), [""; 0]);
}

#[test]
fn each_fault_is_told_once() {
    let case = Case::new();
    let blob = case.add(ObjectKind::Blob, b"", None);
    let tree = case.tree(&[
        (".git", 0o100_644, blob),
        ("b", 0o100_644, blob),
        ("a", 0o100_644, blob),
        ("c", 0o100_644, id(1)),
        ("d", 0o100_644, blob),
        ("d", 0o100_644, blob),
        ("e", 0o100_644, id(0)),
        ("f", 0o100_600, blob),
        ("g", 0o100_644, blob),
        ("g-", 0o100_644, case.tree(&[])),
        ("g", 0o040_000, blob),
    ]);
    let mut found = case.faults(tree);
    let name = &tree.to_string()[..12];
    let why = "is not a legal path: Git keeps \".git\" and its disguises for itself";
    let empty = case.0.empty_tree();
    let mut wanted = vec![
        format!("{name}: \".git\" {why}"),
        format!("{name}: a is out of order in it"),
        format!("{name}: it holds d twice"),
        format!("{name}: e in it has no content"),
        format!("{name}: f in it has the odd mode 100600"),
        format!("{name}: it holds g as a file and as a folder"),
        format!("{name}: it names {empty} as a blob, which is a tree"),
        format!("{name}: it names {blob} as a tree, which is a blob"),
        format!("010101010101: it is missing, and {tree} names it"),
    ];
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn damage_is_found_and_does_not_end_the_search() {
    let case = Case::new();
    let small = case.add(ObjectKind::Blob, b"x", Some(id(1)));
    let large = case.add(ObjectKind::Blob, &vec![1; SMALL + 1], Some(id(2)));
    let broken = case.add(ObjectKind::Tree, b"100644 a", None);
    let tree = case.tree(&[
        ("a", 0o100_644, small),
        ("b", 0o100_644, large),
        ("c", 0o040_000, broken),
        ("d", 0o100_644, id(3)),
    ]);
    let found = case.faults(tree);
    assert_eq!(found.len(), 4);
    for part in [
        "010101010101: its content is that of c1b0730",
        "020202020202: its content is that of ",
        ": the tree ends within a name",
        "030303030303: it is missing",
    ] {
        assert!(
            found.iter().any(|fault| fault.contains(part)),
            "{part} {found:?}"
        );
    }
}

#[test]
fn commits_and_tags_are_checked() {
    let case = Case::new();
    let tree = case.0.empty_tree();
    let blob = case.add(ObjectKind::Blob, b"", None);
    for (text, wanted) in [
        (format!("author {WHO}\n"), "the commit has no tree"),
        (
            format!("tree {tree}\ncommitter {WHO}\n"),
            "the commit has no author",
        ),
        (
            format!("tree {tree}\nauthor {WHO}\n\n"),
            "the commit has no committer",
        ),
        (
            format!("tree {tree}\nparent 12\nauthor {WHO}\n"),
            "its line \"parent\" holds no id",
        ),
        (
            format!("tree {tree}\nauthor A 1 +0000\n"),
            "the commit's author has no address",
        ),
        (
            format!("tree {tree}\nauthor A <<a> 1 +0\n"),
            "the commit's author has a malformed address",
        ),
        (
            format!("tree {tree}\nauthor A <a>\n"),
            "the commit's author has no time",
        ),
        (
            format!("tree {tree}\nauthor A <a> x +0\n"),
            "the commit's author has a malformed time",
        ),
    ] {
        let id = case.add(ObjectKind::Commit, text.as_bytes(), None);
        let name = &id.to_string()[..12];
        assert_eq!(case.faults(id), [format!("{name}: {wanted}")]);
    }
    for (text, wanted) in [
        ("type commit\n".into(), "the tag names no object"),
        (
            format!("object {tree}\ntype thing\n"),
            "the tag does not say what it names",
        ),
        (
            format!("object {tree}\ntype tree\n\n"),
            "the tag has no name",
        ),
        (
            format!("object {tree}\ntype tree\ntag v\ntagger A\n"),
            "the tagger has no address",
        ),
    ] {
        let id = case.add(ObjectKind::Tag, text.as_bytes(), None);
        let name = &id.to_string()[..12];
        assert_eq!(case.faults(id), [format!("{name}: {wanted}")]);
    }
    let text = format!("object {blob}\ntype commit\ntag v\n\n");
    let tag = case.add(ObjectKind::Tag, text.as_bytes(), None);
    let found = case.faults(tag);
    assert!(
        found[0].ends_with("as a commit, which is a blob"),
        "{found:?}"
    );
    let found = case.faults(id(9));
    let wanted = format!("refs/heads/a: it names {}, which is missing", id(9));
    assert_eq!(found[0], wanted);
}
