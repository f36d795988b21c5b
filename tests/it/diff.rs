//! Differences and listings of trees, compared with stock git's.

use std::sync::Arc;

use datakit::model::{Change, Entry, HashKind, Mode, ObjectId, TreePath};
use datakit::store::diff::diff;
use datakit::store::engine::ObjectKind;
use datakit::store::objects::{Fresh, Objects, compare, push_entry};
use datakit::store::walk::{walk, walk_raw};

use crate::stock::{Dice, Repo};

/// Names that sort differently as files and as folders, and odd ones.
const NAMES: [&[u8]; 12] = [
    b"a",
    b"a-b",
    b"a.b",
    b"a0",
    b"a b",
    b"a\nb",
    b"ab",
    b"b",
    b"\xff",
    "ü".as_bytes(),
    b"z\"",
    b".x",
];

struct Forest {
    repo: Repo,
    fresh: Fresh,
    blobs: Vec<ObjectId>,
}

impl Forest {
    fn new() -> Self {
        let mut fresh = Fresh::default();
        let blobs = [&b""[..], b"1", b"longer"]
            .map(|text| {
                fresh
                    .add(HashKind::Sha1, ObjectKind::Blob, text.to_vec())
                    .unwrap()
            })
            .to_vec();
        Self {
            repo: Repo::new(),
            fresh,
            blobs,
        }
    }

    fn tree(&mut self, dice: &mut Dice, depth: usize) -> ObjectId {
        let mut entries = Vec::new();
        for name in NAMES {
            let (mode, id) = match dice.roll(if depth == 0 { 6 } else { 9 }) {
                0 | 1 => continue,
                2 => (Mode::SUBMODULE, ObjectId::from_bytes(&[1; 20]).unwrap()),
                3 => (Mode::LINK, *dice.pick(&self.blobs)),
                4 => (Mode::EXEC, *dice.pick(&self.blobs)),
                5 => (Mode::FILE, *dice.pick(&self.blobs)),
                _ => (Mode::DIR, self.tree(dice, depth - 1)),
            };
            entries.push((name, Entry { mode, id }));
        }
        entries
            .sort_by(|(a, a_is), (b, b_is)| compare(a, a_is.mode.is_dir(), b, b_is.mode.is_dir()));
        let mut raw = Vec::new();
        for (name, entry) in entries {
            push_entry(&mut raw, name, &entry);
        }
        self.fresh
            .add(HashKind::Sha1, ObjectKind::Tree, raw)
            .unwrap()
    }

    /// Writes what was made into the repository.
    fn objects(&self) -> Arc<Objects> {
        let objects = self.repo.objects();
        objects.engine.write(self.fresh.objects()).unwrap();
        objects
    }
}

fn dir(id: ObjectId) -> Entry {
    Entry {
        mode: Mode::DIR,
        id,
    }
}

/// Prints changes as `git diff-tree --raw -z` does.
fn raw(changes: &[Change]) -> String {
    let side = |entry: &Option<Entry>| {
        let zero = ObjectId::from_bytes(&[0; 20]).unwrap();
        entry.map_or((0, zero), |e| (e.mode.0, e.id))
    };
    let mut out = String::new();
    for change in changes {
        let ((old_mode, old_id), (new_mode, new_id)) = (side(&change.old), side(&change.new));
        let kind = |mode| mode & 0o170_000;
        let letter = match (old_mode, new_mode) {
            (0, _) => 'A',
            (_, 0) => 'D',
            (old, new) if kind(old) != kind(new) => 'T',
            _ => 'M',
        };
        let path = change.path.as_bytes().escape_ascii();
        out += &format!(":{old_mode:06o} {new_mode:06o} {old_id} {new_id} {letter}\t{path}\n");
    }
    out
}

fn git_raw(repo: &Repo, old: &ObjectId, new: &ObjectId) -> String {
    let (old, new) = (old.to_string(), new.to_string());
    let out = repo.git(&[
        "diff-tree",
        "-r",
        "--raw",
        "-z",
        "--no-renames",
        "--full-index",
        &old,
        &new,
    ]);
    let mut parts = out.split(|b| *b == 0);
    let mut text = String::new();
    while let (Some(head), Some(path)) = (parts.next(), parts.next()) {
        text += &format!("{}\t{}\n", head.escape_ascii(), path.escape_ascii());
    }
    text
}

#[test]
fn differences_are_gits() {
    let mut forest = Forest::new();
    let mut dice = Dice::new(1);
    let trees: Vec<ObjectId> = (0..12).map(|_| forest.tree(&mut dice, 2)).collect();
    let objects = forest.objects();
    let mut changed = 0;
    for old in &trees {
        for new in trees.iter().take(8) {
            let mut changes = Vec::new();
            let mut out = |change| {
                changes.push(change);
                Ok(())
            };
            diff(
                &objects,
                Some(&dir(*old)),
                Some(&dir(*new)),
                &TreePath::root(),
                &mut out,
            )
            .unwrap();
            assert_eq!(
                raw(&changes),
                git_raw(&forest.repo, old, new),
                "{old} {new}"
            );
            assert!(
                changes.is_sorted_by(|a, b| a.path < b.path || a.path == b.path && b.old.is_none())
            );
            changed += changes.len();
        }
    }
    assert!(changed > 500);
}

#[test]
fn one_sided_differences_list_every_leaf_at_its_place() {
    let mut forest = Forest::new();
    let tree = dir(forest.tree(&mut Dice::new(5), 2));
    let objects = forest.objects();
    let mut leaves = Vec::new();
    walk_raw(&objects, &tree, &mut |path, entry| {
        leaves.push((path.to_vec(), entry));
        Ok(())
    })
    .unwrap();
    let at = TreePath::new("x/y").unwrap();
    for (old, new) in [(None, Some(&tree)), (Some(&tree), None)] {
        let mut found = Vec::new();
        diff(&objects, old, new, &at, &mut |change| {
            let entry = if new.is_some() {
                change.new
            } else {
                change.old
            };
            found.push((change.path.as_bytes().to_vec(), entry.unwrap()));
            Ok(())
        })
        .unwrap();
        let wanted: Vec<_> = leaves
            .iter()
            .map(|(path, entry)| ([b"x/y/", &path[..]].concat(), *entry))
            .collect();
        assert_eq!(found, wanted);
    }
    // A leaf that becomes a folder: it goes, then the folder's leaves come.
    let leaf = Entry {
        mode: Mode::FILE,
        id: forest.blobs[0],
    };
    let mut changes = Vec::new();
    diff(&objects, Some(&leaf), Some(&tree), &at, &mut |change| {
        changes.push(change);
        Ok(())
    })
    .unwrap();
    assert_eq!(changes.len(), leaves.len() + 1);
    assert_eq!((changes[0].old, changes[0].new), (Some(leaf), None));
    assert_eq!(changes[0].path, at);
}

#[test]
fn walks_are_gits() {
    let mut forest = Forest::new();
    let mut dice = Dice::new(9);
    let trees: Vec<ObjectId> = (0..10).map(|_| forest.tree(&mut dice, 3)).collect();
    let objects = forest.objects();
    for tree in trees {
        let mut found = String::new();
        walk(&objects, &dir(tree), true, |path, entry, size| {
            let kind = if entry.mode == Mode::SUBMODULE {
                "commit"
            } else {
                "blob"
            };
            let size = size.map_or("-".into(), |size| size.to_string());
            let path = path.escape_ascii();
            found += &format!(
                "{:06o} {kind} {} {size:>7}\t{path}\n",
                entry.mode.0, entry.id
            );
            Ok(())
        })
        .unwrap();
        let out = forest
            .repo
            .git(&["ls-tree", "-r", "-l", "-z", &tree.to_string()]);
        let wanted: String = out
            .split(|b| *b == 0)
            .filter(|line| !line.is_empty())
            .map(|line| {
                format!(
                    "{}\n",
                    line.escape_ascii().to_string().replacen("\\t", "\t", 1)
                )
            })
            .collect();
        assert_eq!(found, wanted);
    }
    let leaf = Entry {
        mode: Mode::EXEC,
        id: forest.blobs[2],
    };
    let mut items = Vec::new();
    walk(&objects, &leaf, true, |path, entry, size| {
        items.push((path.to_vec(), entry, size));
        Ok(())
    })
    .unwrap();
    assert_eq!(items, [(Vec::new(), leaf, Some(6))]);
}

#[test]
fn folders_nested_without_end_are_refused() {
    let repo = Repo::new();
    let mut stream =
        b"commit refs/heads/deep\ncommitter A <a> 1 +0000\ndata 0\nM 100644 inline ".to_vec();
    stream.extend(b"d/".repeat(4200));
    stream.extend(b"f\ndata 0\n\n");
    repo.feed(&["fast-import", "--quiet"], &stream);
    let tree = repo.ids(&["rev-parse", "deep^{tree}"])[0];
    let objects = repo.objects();
    let error = walk_raw(&objects, &dir(tree), &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "d holds more than 4096 nested folders");
    let error = diff(
        &objects,
        None,
        Some(&dir(tree)),
        &TreePath::root(),
        &mut |_| Ok(()),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "d holds more than 4096 nested folders");
}
