//! Three-way merges: every combination of what three sides can have under a
//! name, against a model that knows leaves and paths only; and merges of
//! commits, against stock git.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datakit::model::request::Side;
use datakit::model::{
    Commit, ConflictKind, Entry, HashKind, Mode, ObjectId, Signature, Time, text,
};
use datakit::store::engine::ObjectKind;
use datakit::store::fsck::fsck;
use datakit::store::memory::Memory;
use datakit::store::merge::{MergeResult, Outcome, merge_commits, merge_trees};
use datakit::store::objects::{Fresh, Objects, compare, push_entry, write_commit};
use datakit::store::walk::walk_raw;

use crate::stock::{Dice, History, Shape};

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Leaf(Entry),
    Dir(BTreeMap<&'static str, Node>),
}

/// A whole tree as a model: leaves by path.
type Leaves = BTreeMap<String, Entry>;

fn hash(kind: ObjectKind, data: &[u8]) -> ObjectId {
    Fresh::default()
        .add(HashKind::Sha1, kind, data.to_vec())
        .unwrap()
}

fn leaf(mode: Mode, content: &str) -> Option<Node> {
    let id = hash(ObjectKind::Blob, content.as_bytes());
    Some(Node::Leaf(Entry { mode, id }))
}

fn dir<const N: usize>(names: [(&'static str, Option<Node>); N]) -> Option<Node> {
    let nodes = names.into_iter().map(|(name, node)| (name, node.unwrap()));
    Some(Node::Dir(nodes.collect()))
}

/// Everything a side may have under a name, as far as merges can tell.
fn choices() -> Vec<Option<Node>> {
    let file = |content| leaf(Mode::FILE, content);
    vec![
        None,
        file("1"),
        file("2"),
        file("3"),
        leaf(Mode::EXEC, "1"),
        leaf(Mode::LINK, "1"),
        leaf(Mode(0o100_664), "1"),
        leaf(Mode::SUBMODULE, "x"),
        dir([("x", file("1")), ("y", file("1"))]),
        dir([("x", file("2")), ("y", file("1"))]),
        dir([("y", file("1"))]),
        dir([("z", file("1"))]),
        dir([("x", dir([("y", file("1"))])), ("y", file("2"))]),
    ]
}

fn write(node: &Node, fresh: &mut Fresh) -> Entry {
    let Node::Dir(nodes) = node else {
        let Node::Leaf(entry) = node else {
            unreachable!()
        };
        return *entry;
    };
    let mut entries: Vec<_> = nodes
        .iter()
        .map(|(name, node)| (name.as_bytes(), write(node, fresh)))
        .collect();
    entries.sort_by(|(a, a_is), (b, b_is)| compare(a, a_is.mode.is_dir(), b, b_is.mode.is_dir()));
    let mut raw = Vec::new();
    for (name, entry) in entries {
        push_entry(&mut raw, name, &entry);
    }
    let id = fresh.add(HashKind::Sha1, ObjectKind::Tree, raw).unwrap();
    Entry {
        mode: Mode::DIR,
        id,
    }
}

fn flatten(node: &Node, path: &str, out: &mut Leaves) {
    match node {
        Node::Leaf(entry) => {
            out.insert(path.into(), *entry);
        }
        Node::Dir(nodes) => {
            for (name, node) in nodes {
                let slash = if path.is_empty() { "" } else { "/" };
                flatten(node, &format!("{path}{slash}{name}"), out);
            }
        }
    }
}

fn leaves(node: &Node) -> Leaves {
    let mut out = Leaves::new();
    flatten(node, "", &mut out);
    out
}

/// The leaves at a path and below.
fn part(leaves: &Leaves, path: &str) -> Leaves {
    let below = format!("{path}/");
    let inside = |at: &str| at == path || at.starts_with(&below);
    let found = leaves.iter().filter(|(at, _)| inside(at));
    found.map(|(at, entry)| (at.clone(), *entry)).collect()
}

/// Merges leaf by leaf, then looks for leaves above others.
fn model(sides: [&Leaves; 3], favour: Option<Side>) -> (Leaves, BTreeMap<String, ConflictKind>) {
    let [base, ours, theirs] = sides;
    let mut result = Leaves::new();
    let mut conflicts = BTreeMap::new();
    let all: BTreeSet<&String> = sides.iter().flat_map(|side| side.keys()).collect();
    for path in &all {
        let [b, o, t] = sides.map(|side| side.get(*path));
        let kind = match (b, o, t) {
            _ if o == t || b == t => {
                result.extend(o.map(|entry| ((*path).clone(), *entry)));
                continue;
            }
            _ if b == o => {
                result.extend(t.map(|entry| ((*path).clone(), *entry)));
                continue;
            }
            (None, ..) => ConflictKind::AddAdd,
            (_, Some(_), Some(_)) => ConflictKind::ChangedBoth,
            _ => ConflictKind::AddDel,
        };
        conflicts.insert((*path).clone(), kind);
    }
    // A leaf on one side where the other has leaves below it.
    for path in &all {
        let [b, o, t] = sides.map(|side| part(side, path));
        let clash = o.contains_key(*path) && !t.is_empty() && !t.contains_key(*path)
            || t.contains_key(*path) && !o.is_empty() && !o.contains_key(*path);
        if clash && b != o && b != t {
            let inside = |at: &str| at == *path || at.starts_with(&format!("{path}/"));
            result.retain(|at, _| !inside(at));
            conflicts.retain(|at, _| !inside(at));
            conflicts.insert((*path).clone(), ConflictKind::FileVsDir);
        }
    }
    for (path, kind) in &conflicts {
        match favour {
            None => {
                let id = hash(ObjectKind::Blob, &text::conflict_file(*kind));
                let mode = Mode::FILE;
                result.insert(path.clone(), Entry { mode, id });
            }
            Some(side) => {
                let winner = [base, ours, theirs][match side {
                    Side::Base => 0,
                    Side::Ours => 1,
                    Side::Theirs => 2,
                }];
                result.extend(part(winner, path));
            }
        }
    }
    (result, conflicts)
}

fn nothing() -> Arc<Objects> {
    Arc::new(Objects::new(Arc::new(Memory::new(HashKind::Sha1))))
}

fn listed(objects: &Objects, tree: &ObjectId) -> Leaves {
    let root = Entry {
        mode: Mode::DIR,
        id: *tree,
    };
    let mut out = Leaves::new();
    walk_raw(objects, &root, &mut |path, entry| {
        let path = String::from_utf8(path.to_vec()).unwrap();
        assert_eq!(out.insert(path, entry), None);
        Ok(())
    })
    .unwrap();
    out
}

/// Merges three trees and compares the result with the model's.
fn check(sides: [&Node; 3], favour: Option<Side>, in_store: bool) -> usize {
    let objects = nothing();
    let mut fresh = Fresh::default();
    let ids = sides.map(|side| write(side, &mut fresh).id);
    if in_store {
        objects.engine.write(fresh.objects()).unwrap();
        fresh = Fresh::default();
    }
    let Outcome { tree, conflicts } = merge_trees(
        &objects,
        &mut fresh,
        Some(&ids[0]),
        &ids[1],
        &ids[2],
        favour,
    )
    .unwrap();
    // What was given away as new has to be all that is missing.
    objects.engine.write(fresh.objects()).unwrap();
    let flat = sides.map(leaves);
    let (wanted, kinds) = model([&flat[0], &flat[1], &flat[2]], favour);
    assert_eq!(listed(&objects, &tree), wanted, "{sides:#?} {favour:?}");
    if favour.is_some() {
        assert!(conflicts.is_empty());
        return kinds.len();
    }
    let found: Vec<_> = conflicts
        .iter()
        .map(|conflict| (conflict.path.to_string(), conflict.kind))
        .collect();
    let wanted: Vec<_> = kinds.into_iter().collect();
    assert_eq!(found, wanted, "{sides:#?}");
    for conflict in &conflicts {
        let stands = [conflict.base, conflict.ours, conflict.theirs];
        for (id, stands) in ids.iter().zip(stands) {
            assert_eq!(objects.lookup(id, &conflict.path).unwrap(), stands);
        }
    }
    // Git would call the new trees sound, but for the mode put in on purpose.
    if !flat
        .iter()
        .flatten()
        .any(|(_, entry)| entry.mode == Mode::SUBMODULE)
    {
        for content in ["1", "2", "3"] {
            let mut blob = Fresh::default();
            blob.add(HashKind::Sha1, ObjectKind::Blob, content.into())
                .unwrap();
            objects.engine.write(blob.objects()).unwrap();
        }
        let faults = fsck(&objects, &[(b"refs/heads/a".to_vec(), tree)], &()).unwrap();
        assert_eq!(faults, []);
    }
    found.len()
}

#[test]
fn every_combination_of_three_sides() {
    let choices = choices();
    let around = |node: &Option<Node>| {
        // Names before, between and behind the places of a file and a folder `n`.
        let mut nodes: BTreeMap<&'static str, Node> = ["m", "n-", "n0", "o"]
            .map(|name| (name, leaf(Mode::FILE, "1").unwrap()))
            .into();
        nodes.extend(node.clone().map(|node| ("n", node)));
        Node::Dir(nodes)
    };
    let mut sided = [Side::Base, Side::Ours, Side::Theirs].iter().cycle();
    let mut conflicts = 0;
    for base in &choices {
        for ours in &choices {
            for theirs in &choices {
                let sides = [base, ours, theirs];
                let nodes = sides.map(around);
                let nodes: [&Node; 3] = std::array::from_fn(|side| &nodes[side]);
                conflicts += check(nodes, None, true);
                let favour = *sided.next().unwrap();
                check(nodes, Some(favour), false);
                // One level down, and alone there: an empty folder is gone.
                let nodes = sides.map(|node| {
                    let inner = node.clone().map(|node| ("n", node));
                    let inner = Node::Dir(inner.into_iter().collect());
                    let empty = inner == Node::Dir(BTreeMap::new());
                    let inner = (!empty).then_some(("sub", inner));
                    Node::Dir(inner.into_iter().collect())
                });
                check(std::array::from_fn(|side| &nodes[side]), None, false);
            }
        }
    }
    assert!(conflicts > 500, "{conflicts}");
}

#[test]
fn trees_made_with_dice() {
    const NAMES: [&str; 7] = ["a", "a-", "a.b", "a0", "b", "c", "c-"];
    fn grow(dice: &mut Dice, choices: &[Option<Node>], depth: usize) -> Node {
        let mut nodes = BTreeMap::new();
        for name in NAMES {
            let node = match dice.roll(3) {
                0 if depth > 0 => Some(grow(dice, choices, depth - 1)),
                _ => dice.pick(choices).clone(),
            };
            let empty = node == Some(Node::Dir(BTreeMap::new()));
            nodes.extend(node.filter(|_| !empty).map(|node| (name, node)));
        }
        Node::Dir(nodes)
    }
    fn change(node: &Node, dice: &mut Dice, choices: &[Option<Node>]) -> Node {
        let Node::Dir(nodes) = node else {
            return node.clone();
        };
        let mut nodes = nodes.clone();
        for _ in 0..dice.roll(3) {
            let name = *dice.pick(&NAMES);
            let deeper = nodes.get(name).map(|node| change(node, dice, choices));
            nodes.remove(name);
            let empty = Some(Node::Dir(BTreeMap::new()));
            let new = match dice.roll(3) {
                0 => dice.pick(choices).clone(),
                _ => deeper.filter(|node| Some(node) != empty.as_ref()),
            };
            nodes.extend(new.map(|node| (name, node)));
        }
        Node::Dir(nodes)
    }
    let choices = choices();
    let mut dice = Dice::new(3);
    let mut conflicts = 0;
    for round in 0..900 {
        let base = grow(&mut dice, &choices, 1);
        let ours = change(&base, &mut dice, &choices);
        let theirs = if round % 3 == 0 {
            grow(&mut dice, &choices, 1)
        } else {
            change(&base, &mut dice, &choices)
        };
        let favour = *dice.pick(&[None, None, Some(Side::Ours), Some(Side::Base)]);
        conflicts += check([&base, &ours, &theirs], favour, round % 2 == 0);
    }
    assert!(conflicts > 100, "{conflicts}");
}

fn who() -> Signature {
    Signature {
        name: b"A".to_vec(),
        email: b"a@b".to_vec(),
        time: Time {
            seconds: 2_000_000_000,
            offset: 0,
        },
    }
}

#[test]
fn merges_of_commits_are_gits() {
    let (mut clean, mut crossed, mut unrelated) = (0, 0, 0);
    for seed in 1..=9 {
        let mut dice = Dice::new(seed);
        let shape = Shape {
            commits: 30,
            skew: seed % 2 == 0,
            merges: 1 + seed as usize % 3,
            roots: 15,
        };
        let history = History::new(shape, &mut dice);
        let objects = history.repo.objects();
        for _ in 0..12 {
            let (ours, theirs) = (history.pick(&mut dice), history.pick(&mut dice));
            let mut fresh = Fresh::default();
            let MergeResult { base, outcome } =
                merge_commits(&objects, &mut fresh, &ours, &theirs, None, &who()).unwrap();
            unrelated += usize::from(base.is_none());
            let made_up = base.is_some_and(|base| fresh.get(&base).is_some());
            crossed += usize::from(made_up);
            let git = history.repo.run(
                &[
                    "merge-tree",
                    "--write-tree",
                    "--allow-unrelated-histories",
                    &ours.to_string(),
                    &theirs.to_string(),
                ],
                b"",
            );
            let git_clean = git.status.code() == Some(0);
            assert!(git_clean || git.status.code() == Some(1));
            if outcome.conflicts.is_empty() {
                clean += 1;
                assert!(git_clean, "{ours} {theirs}");
                let tree = ObjectId::from_hex(&git.stdout[..40]).unwrap();
                assert_eq!(outcome.tree, tree, "{ours} {theirs}");
            } else if !made_up {
                assert!(!git_clean, "{ours} {theirs}");
            }
            // Which side is ours makes no difference.
            let mut other = Fresh::default();
            let back = merge_commits(&objects, &mut other, &theirs, &ours, None, &who()).unwrap();
            assert_eq!((back.base, back.outcome.tree), (base, outcome.tree));
        }
    }
    let seen = [clean, crossed, unrelated];
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// Makes a commit of one file that is nowhere but in `fresh`.
fn commit(fresh: &mut Fresh, file: &str, parents: &[ObjectId], seconds: i64) -> ObjectId {
    let tree = write(&dir([("f", leaf(Mode::FILE, file))]).unwrap(), fresh).id;
    let mut author = who();
    author.time.seconds = seconds;
    let commit = Commit {
        id: tree,
        tree,
        parents: parents.to_vec(),
        committer: author.clone(),
        author,
        message: file.into(),
    };
    fresh
        .add(HashKind::Sha1, ObjectKind::Commit, write_commit(&commit))
        .unwrap()
}

#[test]
fn a_criss_cross_settled_differently_is_a_conflict_and_alike_is_none() {
    let objects = nothing();
    let mut fresh = Fresh::default();
    let root = commit(&mut fresh, "0", &[], 1);
    let (a, b) = (
        commit(&mut fresh, "1", &[root], 2),
        commit(&mut fresh, "2", &[root], 3),
    );
    let left = commit(&mut fresh, "1", &[a, b], 4);
    let right = commit(&mut fresh, "2", &[b, a], 5);
    let alike = commit(&mut fresh, "1", &[b, a], 6);
    let result = merge_commits(&objects, &mut fresh, &left, &right, None, &who()).unwrap();
    assert_eq!(result.outcome.conflicts.len(), 1);
    assert_eq!(result.outcome.conflicts[0].kind, ConflictKind::ChangedBoth);
    // What the base names can be looked up once it is written.
    let base = result.base.unwrap();
    objects.engine.write(fresh.objects()).unwrap();
    assert_eq!(objects.commit(&base).unwrap().parents, [a, b]);
    let result = merge_commits(&objects, &mut fresh, &left, &alike, None, &who()).unwrap();
    assert!(result.outcome.conflicts.is_empty());
    assert_eq!(result.outcome.tree, objects.commit(&left).unwrap().tree);
}

#[test]
fn a_ladder_of_criss_crosses_ends() {
    let objects = nothing();
    let mut fresh = Fresh::default();
    let root = commit(&mut fresh, "0", &[], 1);
    let mut pair = [
        commit(&mut fresh, "1", &[root], 2),
        commit(&mut fresh, "2", &[root], 2),
        commit(&mut fresh, "3", &[root], 2),
    ];
    for step in 0..300 {
        let next = |fresh: &mut Fresh, nth: usize| {
            let file = format!("{nth} {step}");
            commit(
                fresh,
                &file,
                &[pair[nth], pair[(nth + 1) % 3], pair[(nth + 2) % 3]],
                step + 3,
            )
        };
        pair = [
            next(&mut fresh, 0),
            next(&mut fresh, 1),
            next(&mut fresh, 2),
        ];
    }
    let result = merge_commits(&objects, &mut fresh, &pair[0], &pair[1], None, &who()).unwrap();
    assert_eq!(result.outcome.conflicts.len(), 1);
}
