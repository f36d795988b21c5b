//! Logs, merge bases and first-parent chains, compared with stock git's.

use std::sync::Arc;

use datakit::model::request::LogQuery;
use datakit::model::{Kind, ObjectId, TreePath};
use datakit::store::history::{Chain, Log, first_parents, is_ancestor, merge_bases};
use datakit::store::objects::Objects;

use crate::stock::{Dice, History, PATHS, Repo, Shape};

const SHAPE: Shape = Shape {
    commits: 60,
    skew: false,
    merges: 3,
    roots: 20,
};

fn histories(skew: bool, each: impl Fn(&History, &Arc<Objects>, &mut Dice)) {
    for seed in 1..=6 {
        let mut dice = Dice::new(seed + 100 * u64::from(skew));
        let history = History::new(Shape { skew, ..SHAPE }, &mut dice);
        let objects = history.repo.objects();
        each(&history, &objects, &mut dice);
    }
}

fn log(objects: &Arc<Objects>, query: &LogQuery) -> Vec<ObjectId> {
    Log::new(objects.clone(), query.clone())
        .map(|commit| commit.unwrap().id)
        .collect()
}

fn git_log(history: &History, query: &LogQuery) -> Vec<ObjectId> {
    let mut args: Vec<String> = vec!["log".into(), "--format=%H".into()];
    args.extend(query.from.iter().map(ToString::to_string));
    args.extend(query.hidden.iter().map(|id| format!("^{id}")));
    if query.first_parent {
        args.push("--first-parent".into());
    }
    if let Some(limit) = query.limit {
        args.push(format!("-n{limit}"));
    }
    args.push("--".into());
    args.extend(query.paths.iter().map(ToString::to_string));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    history.repo.ids(&args)
}

fn some(history: &History, dice: &mut Dice, at_most: usize) -> Vec<ObjectId> {
    (0..=dice.roll(at_most))
        .map(|_| history.pick(dice))
        .collect()
}

fn paths(dice: &mut Dice) -> Vec<TreePath> {
    let all = [&PATHS[..], &["d", "d/e", "none"]].concat();
    (0..=dice.roll(2))
        .map(|_| TreePath::new(dice.pick(&all)).unwrap())
        .collect()
}

#[test]
fn logs_are_gits_in_every_order() {
    for skew in [false, true] {
        histories(skew, |history, objects, dice| {
            for round in 0..30 {
                let query = LogQuery {
                    from: some(history, dice, 3),
                    first_parent: round % 3 == 0,
                    limit: (round % 4 == 0).then(|| dice.roll(20) as u64),
                    paths: if round % 2 == 0 {
                        paths(dice)
                    } else {
                        Vec::new()
                    },
                    ..LogQuery::default()
                };
                assert_eq!(log(objects, &query), git_log(history, &query), "{query:?}");
            }
        });
    }
}

#[test]
fn logs_without_hidden_commits_are_gits() {
    histories(false, |history, objects, dice| {
        for round in 0..40 {
            let query = LogQuery {
                from: some(history, dice, 2),
                hidden: some(history, dice, 2),
                first_parent: round % 3 == 0,
                limit: (round % 5 == 0).then(|| dice.roll(10) as u64),
                paths: if round % 2 == 0 {
                    paths(dice)
                } else {
                    Vec::new()
                },
            };
            assert_eq!(log(objects, &query), git_log(history, &query), "{query:?}");
        }
    });
}

#[test]
fn hidden_commits_stay_hidden_whatever_the_clocks_say() {
    histories(true, |history, objects, dice| {
        for round in 0..60 {
            let query = LogQuery {
                from: some(history, dice, 2),
                hidden: some(history, dice, 2),
                first_parent: round % 2 == 0,
                ..LogQuery::default()
            };
            let hidden = history.reach(&query.hidden);
            let mut wanted = if query.first_parent {
                query
                    .from
                    .iter()
                    .flat_map(|id| history.chain(*id))
                    .collect()
            } else {
                history.reach(&query.from)
            };
            wanted.retain(|id| !hidden.contains(id));
            wanted.sort_unstable();
            wanted.dedup();
            let mut found = log(objects, &query);
            found.sort_unstable();
            assert_eq!(found, wanted, "{query:?}");
        }
    });
}

#[test]
fn a_side_left_aside_is_hidden_when_its_merge_turns_out_to_be() {
    let repo = Repo::new();
    let mut stream = String::new();
    for (name, time, parents) in [
        ("root", 1, ""),
        ("aside", 2, "from refs/heads/root\n"),
        ("first", 3, ""),
        (
            "merge",
            100,
            "from refs/heads/first\nmerge refs/heads/aside\n",
        ),
        // Older than what it descends from.
        ("late", 49, "from refs/heads/merge\n"),
        ("hidden", 50, "from refs/heads/late\n"),
        ("tip", 101, "from refs/heads/merge\n"),
        ("other", 40, "from refs/heads/root\n"),
    ] {
        stream += &format!("commit refs/heads/{name}\ncommitter {name} <a> {time} +0000\n");
        stream += &format!("data 0\n{parents}\n");
    }
    repo.feed(&["fast-import", "--quiet"], stream.as_bytes());
    let id = |name| repo.ids(&["rev-parse", name])[0];
    let query = LogQuery {
        from: vec![id("tip"), id("other")],
        hidden: vec![id("hidden")],
        first_parent: true,
        ..LogQuery::default()
    };
    assert_eq!(log(&repo.objects(), &query), query.from);
}

#[test]
fn merge_bases_are_gits_whatever_the_clocks_say() {
    for skew in [false, true] {
        histories(skew, |history, objects, dice| {
            for _ in 0..40 {
                let (a, b) = (history.pick(dice), history.pick(dice));
                let mut found = merge_bases(objects, &a, &b).unwrap();
                found.sort_unstable();
                // Git fails where there is none.
                let common = history.reach(&[a]);
                let other = history.reach(&[b]);
                let wanted = if common.iter().any(|id| other.contains(id)) {
                    let (a, b) = (a.to_string(), b.to_string());
                    let mut ids = history.repo.ids(&["merge-base", "--all", &a, &b]);
                    ids.sort_unstable();
                    ids
                } else {
                    Vec::new()
                };
                assert_eq!(found, wanted, "{a} {b}");
            }
        });
    }
}

#[test]
fn ancestors_are_found_whatever_the_clocks_say() {
    histories(true, |history, objects, dice| {
        for _ in 0..200 {
            let (a, b) = (history.pick(dice), history.pick(dice));
            let wanted = history.reach(&[b]).contains(&a);
            assert_eq!(is_ancestor(objects, &a, &b).unwrap(), wanted, "{a} {b}");
        }
    });
}

#[test]
fn chains_begin_where_they_should() {
    let mut kinds = [0; 3];
    for skew in [false, true] {
        for seed in 1..=6 {
            let mut dice = Dice::new(seed);
            let history = History::new(Shape { skew, ..SHAPE }, &mut dice);
            let objects = history.repo.objects();
            for _ in 0..100 {
                let (head, until) = (history.pick(&mut dice), history.pick(&mut dice));
                let whole = history.chain(head);
                let at = whole.iter().position(|id| *id == until);
                let holds = |id: &&ObjectId| history.reach(&[**id]).contains(&until);
                let with = whole.iter().take_while(holds).count();
                let part = |count| whole[..count].iter().rev().copied().collect();
                let wanted = match (at, with) {
                    (Some(at), _) => Chain::Found(part(at)),
                    (None, 0) => Chain::Unrelated,
                    (None, with) => Chain::Joined(part(with)),
                };
                let found = first_parents(&objects, &head, Some(&until)).unwrap();
                assert_eq!(found, wanted, "{head} {until}");
                kinds[match wanted {
                    Chain::Found(_) => 0,
                    Chain::Joined(_) => 1,
                    Chain::Unrelated => 2,
                }] += 1;
                let all = first_parents(&objects, &head, None).unwrap();
                assert_eq!(all, Chain::Found(part(whole.len())));
            }
        }
    }
    assert!(kinds.iter().all(|count| *count > 50), "{kinds:?}");
}

#[test]
fn a_missing_parent_is_damage_and_a_missing_start_is_not_there() {
    let repo = Repo::new();
    let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
    let nobody = "1234567890123456789012345678901234567890";
    let raw =
        format!("tree {tree}\nparent {nobody}\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\n");
    let out = repo.feed(
        &["hash-object", "-w", "-t", "commit", "--stdin"],
        raw.as_bytes(),
    );
    let id = ObjectId::from_hex(out.trim_ascii()).unwrap();
    let objects = repo.objects();
    let query = LogQuery {
        from: vec![id],
        ..LogQuery::default()
    };
    let mut found = Log::new(objects.clone(), query);
    let error = found.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains(nobody), "{error}");
    assert!(found.next().is_none());
    let error = first_parents(&objects, &id, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    let nobody = ObjectId::from_hex(nobody.as_bytes()).unwrap();
    let error = is_ancestor(&objects, &nobody, &id).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}
