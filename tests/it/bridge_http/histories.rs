//! Random histories on both sides, with faults: failures, cut connections, lost
//! events, crashes. Once it is quiet both sides agree, and nothing was said
//! twice.

use std::time::Duration;

use datakit::bridge::github::webhook::parse;
use datakit::forge::*;

use super::world::*;
use crate::aftermath::seed;
use crate::bridge_github::world::{name, repo};
use crate::github::{Fault, events};
use crate::stock::Dice;

const SHAS: [&str; 4] = ["foo", "bar", "c1", "c2"];

/// What GitHub should come to be in the branch.
fn wanted(world: &World) -> Snapshot {
    let mut is = world.hub.world().is.clone();
    is.prune(|_, _, _| false);
    is.add_repo(&repo());
    is
}

/// Somebody does something there. Returns what is told of it.
fn there(world: &World, dice: &mut Dice, round: usize) -> Vec<(&'static str, Vec<u8>)> {
    let hub = &mut *world.hub.world();
    let sha = (*dice.pick(&SHAS)).to_owned();
    let number = 1 + dice.roll(4) as u64;
    let key = (repo(), number);
    let (_, event, payload) = match dice.roll(6) {
        0 => {
            let name = name(dice.pick::<&str>(&["heads/a", "heads/b", "tags/v1"]));
            let head = (dice.roll(3) > 0).then_some(sha.as_str());
            match head {
                Some(head) => hub.is.add_ref(&repo(), &name, head.into()),
                None => hub.is.remove(&Id::Ref(repo(), name.clone())),
            }
            events::push(&repo(), &name, head)
        }
        1 => {
            let at = context(dice.pick::<&str>(&["ci/a", "ci/b"])).unwrap();
            let state = *dice.pick(&StatusState::ALL);
            let status = Status::new(state, Some(&format!("{round}")), None);
            hub.is.add_status(&repo(), &sha, &at, status.clone());
            events::status(&repo(), &sha, &at, &status)
        }
        2 if hub.is.prs.contains_key(&key) => {
            let id = hub.id();
            let body = format!("theirs {id}").into_bytes();
            let user = "you".into();
            let pr = hub.is.prs.get_mut(&key).unwrap();
            pr.comments.push(Comment { id, user, body });
            events::comment(&repo(), number)
        }
        3 if hub.is.prs.contains_key(&key) => {
            let pr = hub.is.prs.get_mut(&key).unwrap();
            pr.state = *dice.pick(&[PrState::Open, PrState::Closed]);
            pr.closed_at = (pr.state == PrState::Closed).then(crate::github::now);
            let pr = pr.clone();
            events::pull_request(&repo(), number, &pr, "closed")
        }
        4 if hub.is.prs.contains_key(&key) => {
            let pr = hub.is.prs.get_mut(&key).unwrap();
            pr.title = format!("theirs {round}");
            pr.labels = vec![(*dice.pick(&["bug", "doc"])).into()];
            let pr = pr.clone();
            events::pull_request(&repo(), number, &pr, "edited")
        }
        _ => {
            let mut pr = described(&sha, &format!("opened {round}"));
            if let Some(old) = hub.is.prs.get(&key) {
                pr.comments = old.comments.clone();
            }
            hub.is.add_pr(&repo(), number, pr.clone());
            events::pull_request(&repo(), number, &pr, "opened")
        }
    };
    vec![(event, serde_json::to_vec(&payload).unwrap())]
}

/// Somebody does something here.
async fn here(world: &World, dice: &mut Dice, round: usize) {
    let number = 1 + dice.roll(4);
    let pr = format!("test/test/pr/{number}");
    let exists = world
        .files("")
        .await
        .iter()
        .any(|path| path.starts_with(&format!("{pr}/head")));
    let sha = *dice.pick(&SHAS);
    // What is said twice may be posted twice.
    let text = format!("ours {round} {}", world.hub.world().id());
    match dice.roll(5) {
        0 => {
            let state = dice.pick::<&str>(&["success", "failure", "pending"]);
            let folder = format!("test/test/commit/{sha}/status/ci/ours");
            let (state_file, text_file) =
                (format!("{folder}/state"), format!("{folder}/description"));
            world
                .write(&[(&state_file, state), (&text_file, &text)])
                .await;
        }
        1 => {
            let path = format!(
                "test/test/ref/heads/{}/head",
                dice.pick::<&str>(&["ours", "a"])
            );
            world.write(&[(&path, sha)]).await;
        }
        2 if exists => {
            world.write(&[(&format!("{pr}/title"), &text)]).await;
        }
        3 if exists => {
            let path = format!(
                "{pr}/comments/{}/body",
                dice.pick::<&str>(&["mine", "2", "9"])
            );
            world.write(&[(&path, &text)]).await;
        }
        4 if exists => {
            world.write(&[(&format!("{pr}/state"), "closed")]).await;
        }
        _ => world.write(&[(&format!("{pr}/.dirty"), "")]).await,
    }
}

#[tokio::test]
async fn both_sides_agree_once_it_is_quiet() {
    let mut dice = Dice::new(seed());
    let mut world = World::new("*:rw,ref:rw,comment:rw").await;
    world.force_refs = true;
    world.restart();
    world.hub.world().is.add_repo(&repo());
    world
        .hub
        .world()
        .is
        .add_ref(&repo(), &name("heads/master"), "foo".into());
    world.follow(&["test/test"]).await;
    world.sync().await;
    let mut posted = 0;
    for round in 0..60 {
        for _ in 0..3 {
            let mut heard = Vec::new();
            for _ in 0..dice.roll(3) {
                let told = there(&world, &mut dice, round);
                // One in four gets lost.
                if dice.roll(4) > 0 {
                    for (event, payload) in told {
                        heard.extend(parse(event, &payload).unwrap());
                    }
                }
            }
            for _ in 0..dice.roll(2) {
                here(&world, &mut dice, round).await;
            }
            let faults: Vec<Option<Fault>> = (0..20)
                .map(|_| match dice.roll(12) {
                    0 => Some(Fault::Status(502, "Bad Gateway")),
                    1 => Some(Fault::Cut),
                    2 => Some(Fault::Status(403, "Resource not accessible by integration")),
                    _ => None,
                })
                .collect();
            if dice.roll(2) == 0 {
                world.hub.world().faults = faults.into();
            }
            // It may be killed at any time, in the middle of it too.
            let life = match dice.roll(4) {
                0 => Duration::from_micros(dice.roll(20_000) as u64),
                _ => Duration::MAX,
            };
            let ended = tokio::time::timeout(life, world.hear(&heard)).await;
            if ended.is_err() || dice.roll(3) == 0 {
                world.restart();
            }
        }
        world.hub.world().faults.clear();
        // What was lost is found when all is read again, and what was told
        // then is what GitHub says the next time.
        world.everything().await;
        world.everything().await;
        let says = world.says().await;
        assert_eq!(says, wanted(&world), "round {round}");
        let (heads, changes) = (world.heads().await, world.hub.world().changes().len());
        for restart in [false, true] {
            if restart {
                world.restart();
            }
            let outcome = world.everything().await;
            assert!(
                outcome.failed.is_empty() && outcome.unread.is_empty(),
                "round {round}"
            );
            assert_eq!(
                world.hub.world().changes().len(),
                changes,
                "round {round}: quiet"
            );
            assert_eq!(world.heads().await, heads, "round {round}: quiet");
        }
        let hub = world.hub.world();
        for pr in hub.is.prs.values() {
            let mut said: Vec<&[u8]> = pr.comments.iter().map(|comment| &*comment.body).collect();
            posted += said.iter().filter(|body| body.starts_with(b"ours")).count();
            let count = said.len();
            said.sort();
            said.dedup();
            assert_eq!(said.len(), count, "round {round}: said twice");
        }
    }
    assert!(posted > 0, "something was said");
    world.hub.assert_faithful();
}
