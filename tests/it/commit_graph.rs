//! Git's commit-graph: what it says is used, and nothing depends on it.

use std::fs;
use std::path::{Path, PathBuf};

use datakit::model::ObjectId;
use datakit::store::engine::Engine as _;
use datakit::store::git::Git;

use crate::engine_git::open;
use crate::engine_subject::stock;
use crate::sandbox::Sandbox;

fn id(hex: &str) -> ObjectId {
    ObjectId::from_hex(hex.as_bytes()).unwrap()
}

/// A repository with a merge of three, and its commit-graph.
fn merged() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::with_store();
    sandbox.commit("master", "first", &[("a", "1\n")]);
    for side in ["one", "two"] {
        sandbox.dk(["branch", "create", side, "master"]);
        sandbox.commit(side, side, &[(side, "2\n")]);
    }
    sandbox.commit("master", "second", &[("a", "3\n")]);
    let store = sandbox.join("db.git");
    let tree = stock(&store, &["rev-parse", "master^{tree}"]);
    let mut args = vec!["commit-tree", tree.trim_end(), "-m", "octopus"];
    for side in ["master", "one", "two"] {
        args.extend(["-p", side]);
    }
    let merge = stock(&store, &args);
    stock(
        &store,
        &["update-ref", "refs/heads/master", merge.trim_end()],
    );
    stock(&store, &["commit-graph", "write", "--reachable"]);
    (sandbox, store)
}

/// Compares every commit of the graph with what Git says; returns how many it knows.
fn compare(git: &Git, store: &Path) -> usize {
    let lines = stock(store, &["log", "--all", "--format=%H %T %ct %P"]);
    let known = lines.lines().filter(|line| {
        let words: Vec<_> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let Some(node) = git.indexed(&id(words[0])) else {
            return false;
        };
        assert_eq!(node.tree, id(words[1]));
        assert_eq!(node.time, words[2].parse::<i64>().unwrap());
        let parents: Vec<_> = words[3..].iter().copied().map(id).collect();
        assert_eq!(node.parents, parents);
        true
    });
    known.count()
}

#[test]
fn a_commit_graph_says_what_the_commits_do() {
    let (sandbox, store) = merged();
    assert_eq!(compare(&open(&store), &store), 5);
    // What came since is read as a commit.
    sandbox.commit("master", "third", &[("a", "4\n")]);
    assert_eq!(compare(&open(&store), &store), 5);
    let listed = sandbox.dk(["log", "--oneline", "--", "a"]);
    let subjects: Vec<_> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let subjects: Vec<_> = subjects.into_iter().map(|(_, subject)| subject).collect();
    assert_eq!(subjects, ["third", "second", "first"]);
    stock(&store, &["config", "core.commitGraph", "false"]);
    assert_eq!(compare(&open(&store), &store), 0);
}

#[test]
fn a_collector_renews_the_graph_of_an_open_store() {
    let (sandbox, store) = merged();
    let git = open(&store);
    assert_eq!(compare(&git, &store), 5);
    let new = sandbox.commit("master", "third", &[("a", "4\n")]);
    assert_eq!(compare(&git, &store), 5);
    stock(&store, &["gc", "-q"]);
    let new = id(new.trim_end());
    // A look-up that misses notices the collector.
    let absent = id(&"7".repeat(40));
    assert!(git.header(&absent).unwrap().is_none());
    assert!(git.indexed(&new).is_some());
}

#[test]
fn a_shallow_clone_ends_where_it_was_cut() {
    let (sandbox, store) = merged();
    let source = format!("file://{}", store.display());
    sandbox.git(["clone", "-q", "--bare", "--depth=1", &source, "cut.git"]);
    let cut = sandbox.join("cut.git");
    // A graph that does not know of the cut.
    fs::copy(
        store.join("objects/info/commit-graph"),
        cut.join("objects/info/commit-graph"),
    )
    .unwrap();
    let git = open(&cut);
    let head = stock(&cut, &["rev-parse", "master"]);
    let head = id(head.trim_end());
    assert!(git.indexed(&head).is_none());
    assert!(git.is_shallow(&head));
}

#[test]
fn a_damaged_graph_is_left_aside_or_wrong_but_no_crash() {
    let (_sandbox, store) = merged();
    let path = store.join("objects/info/commit-graph");
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let ids: Vec<_> = stock(&store, &["log", "--all", "--format=%H"])
        .lines()
        .map(id)
        .collect();
    let look = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let git = open(&store);
        let known = ids.iter().filter(|id| git.indexed(id).is_some()).count();
        fs::remove_file(&path).unwrap();
        known
    };
    assert_eq!(look(&whole), ids.len());
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] = !damaged[at];
        look(&damaged);
    }
    for length in (0..whole.len()).step_by(16) {
        look(&whole[..length]);
    }
}
