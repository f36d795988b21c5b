//! The GitHub of the tests, for trying `dk bridge github` by hand:
//!
//! ```text
//! cargo bench --profile dev --bench local -- --github
//! ```
//!
//! It says where it is, then does what it reads, a line at a time, until the
//! end of its input. `help` names what it understands. What it is asked is
//! checked against GitHub's description all the while.

use std::collections::VecDeque;
use std::io::BufRead as _;
use std::time::Duration;

use datakit::forge::*;
use datakit::model::TreePath;

use crate::github::{App, Fault, GitHub, events, now};

const HELP: &str = "\
repo U/R                    a repository
pr U/R N SHA TITLE...       opens a pull request, or gives it another head and title
close U/R N                 closes it
comment U/R N TEXT...       says something below it
edit U/R N ID TEXT...       says something else in a comment
ref U/R NAME SHA|-          moves heads/X or tags/X, or takes it away
status U/R SHA CONTEXT STATE
again U/R SHA CONTEXT       somebody clicks Re-run
org NAME                    the account is an organisation
token TEXT|-                the only token that is good; any
app ID SECONDS              an App, whose tokens live so long
broken U/R STATUS TEXT...   answers nothing else; mended U/R
fault STATUS TEXT...        of the next call
cut                         the next answer ends in the middle
secondary [SECONDS]         the next call meets a secondary limit
left N [SECONDS]            calls that are left, and until when
lose|find                   deliveries get lost, or no more
asked                       the calls since it was said last
is                          what there is
wrong                       what was asked or answered otherwise than described";

/// Serves until standard input ends.
pub fn serve() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let hub = runtime.block_on(GitHub::start());
    println!("{}", hub.url);
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.is_empty() && runtime.block_on(heed(&hub, &words)).is_none() {
            println!("{line}: not understood; there is help");
        }
    }
}

/// Does what a line says.
async fn heed(hub: &GitHub, words: &[&str]) -> Option<()> {
    let name = |text: &str| TreePath::new(text).ok();
    let told = match *words {
        ["help"] => {
            println!("{HELP}");
            None
        }
        ["repo", repo] => {
            hub.world().is.add_repo(&repo.parse().ok()?);
            None
        }
        ["pr", repo, number, sha, ref title @ ..] => {
            let (repo, number) = (repo.parse().ok()?, number.parse().ok()?);
            let mut pr = Pr::new(sha, PrState::Open, &title.join(" "), "master", "somebody");
            pr.head_repo = Some("somebody/fork".into());
            let is = &mut hub.world().is;
            match is.prs.get(&(Repo::clone(&repo), number)) {
                Some(old) => pr.comments = old.comments.clone(),
                None => pr.comments.push(said(0, "what it is for")),
            }
            is.add_pr(&repo, number, pr.clone());
            Some(events::pull_request(&repo, number, &pr, "synchronize"))
        }
        ["close", repo, number] => {
            let key: (Repo, u64) = (repo.parse().ok()?, number.parse().ok()?);
            let mut world = hub.world();
            let pr = world.is.prs.get_mut(&key)?;
            (pr.state, pr.closed_at) = (PrState::Closed, Some(now()));
            Some(events::pull_request(&key.0, key.1, pr, "closed"))
        }
        ["comment", repo, number, ref text @ ..] => {
            let key: (Repo, u64) = (repo.parse().ok()?, number.parse().ok()?);
            let mut world = hub.world();
            let id = world.id();
            let pr = world.is.prs.get_mut(&key)?;
            pr.comments.push(said(id, &text.join(" ")));
            Some(events::comment(&key.0, key.1))
        }
        ["edit", repo, number, id, ref text @ ..] => {
            let key: (Repo, u64) = (repo.parse().ok()?, number.parse().ok()?);
            let id: u64 = id.parse().ok()?;
            let mut world = hub.world();
            let pr = world.is.prs.get_mut(&key)?;
            let mut all = pr.comments.iter_mut();
            all.find(|comment| comment.id == id)?.body = text.join(" ").into();
            Some(events::comment(&key.0, key.1))
        }
        ["ref", repo, at, sha] => {
            let (repo, at) = (repo.parse().ok()?, name(at)?);
            let head = (sha != "-").then_some(sha);
            let is = &mut hub.world().is;
            match head {
                Some(head) => is.add_ref(&repo, &at, head.into()),
                None => is.remove(&Id::Ref(Repo::clone(&repo), at.clone())),
            }
            Some(events::push(&repo, &at, head))
        }
        ["status", repo, sha, at, state] => {
            let (repo, at) = (repo.parse().ok()?, context(at)?);
            let mut known = StatusState::ALL.into_iter();
            let status = Status::new(known.find(|known| known.word() == state)?, None, None);
            hub.world().is.add_status(&repo, sha, &at, status.clone());
            Some(events::status(&repo, sha, &at, &status))
        }
        ["again", repo, sha, at] => Some(events::rerequested(&repo.parse().ok()?, sha, at)),
        _ => return settle(&mut hub.world(), words),
    };
    if let Some(told) = told {
        hub.tell(told).await;
    }
    Some(())
}

/// What is of the world around, and not told.
fn settle(world: &mut crate::github::World, words: &[&str]) -> Option<()> {
    match *words {
        ["org", name] => _ = world.organisations.insert(name.into()),
        ["token", text] => world.token = (text != "-").then(|| text.into()),
        ["app", id, seconds] => {
            world.app = Some(App {
                id: id.into(),
                life: Duration::from_secs(seconds.parse().ok()?),
                tokens: std::collections::BTreeMap::new(),
            });
        }
        ["broken", repo, status, ref text @ ..] => {
            let text = text.join(" ").leak();
            world
                .broken
                .insert(repo.into(), (status.parse().ok()?, text));
        }
        ["mended", repo] => _ = world.broken.remove(repo),
        ["fault", status, ref text @ ..] => {
            let text = text.join(" ").leak();
            next(&mut world.faults, Fault::Status(status.parse().ok()?, text));
        }
        ["cut"] => next(&mut world.faults, Fault::Cut),
        ["secondary"] => next(&mut world.faults, Fault::Secondary(None)),
        ["secondary", seconds] => {
            let seconds = seconds.parse().ok()?;
            next(&mut world.faults, Fault::Secondary(Some(seconds)));
        }
        ["left", count] => world.left = count.parse().ok()?,
        ["left", count, seconds] => {
            let seconds: i64 = seconds.parse().ok()?;
            world.left = count.parse().ok()?;
            world.reset = (jiff::Timestamp::now().as_second() + seconds)
                .try_into()
                .ok()?;
        }
        ["lose"] => world.lose = true,
        ["find"] => world.lose = false,
        ["asked"] => {
            for call in std::mem::take(&mut world.asked) {
                println!("{} {} {}", call.method, call.path, call.status);
            }
        }
        ["is"] => println!("{:#?}\n{:#?}\n{:#?}", world.is, world.checks, world.hooks),
        ["wrong"] => world.wrong.iter().for_each(|wrong| println!("{wrong}")),
        _ => return None,
    }
    Some(())
}

fn next(faults: &mut VecDeque<Option<Fault>>, fault: Fault) {
    faults.push_back(Some(fault));
}

fn said(id: u64, text: &str) -> Comment {
    Comment {
        id,
        user: "somebody".into(),
        body: text.into(),
    }
}
