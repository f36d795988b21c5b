//! What is to be done when the branch and GitHub differ: no I/O, one rule.
//!
//! Three values of each element decide: the branch's, GitHub's, and the last
//! one on which both agreed. Who changed it since then is followed; where both
//! did, `x` lets the branch win and everything else GitHub. What may not be
//! written to GitHub is put back in the branch.
//!
//! Of a pull request only title, state and base can be written, each by
//! itself; the rest is always GitHub's. Nothing but a ref can be removed there,
//! so what somebody removed from the branch comes back. A ref is removed only
//! where both sides had agreed on it, GitHub has not moved it since, and the
//! branch still has another: a folder that is not there removes nothing.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::capabilities::{Capabilities, Ops, Resource};
use crate::forge::{Comment, Context, Id, Pr, RefName, Repo, Sha, Snapshot, Status};

/// Something to be told to GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Sets parts of it.
    Pr(Repo, u64, Pr, Parts),
    /// Posts a comment.
    Comment(Repo, u64, Vec<u8>),
    Status(Repo, Sha, Context, Status),
    SetRef(Repo, RefName, Sha),
    RemoveRef(Repo, RefName),
}

/// The parts of a pull request that are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    pub title: bool,
    pub state: bool,
    pub base: bool,
}

impl Push {
    pub fn repo(&self) -> &Repo {
        match self {
            Self::Pr(repo, ..)
            | Self::Comment(repo, ..)
            | Self::Status(repo, ..)
            | Self::SetRef(repo, ..)
            | Self::RemoveRef(repo, _) => repo,
        }
    }

    /// The element it is about.
    pub fn id(&self) -> Id {
        match self {
            Self::Pr(repo, number, ..) | Self::Comment(repo, number, _) => {
                Id::Pr(repo.clone(), *number)
            }
            Self::Status(repo, sha, context, _) => {
                Id::Status(repo.clone(), sha.clone(), context.clone())
            }
            Self::SetRef(repo, name, _) | Self::RemoveRef(repo, name) => {
                Id::Ref(repo.clone(), name.clone())
            }
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What GitHub is to be told, in the order of the elements.
    pub pushes: Vec<Push>,
    /// What the branch is to say, if all of that succeeds.
    pub wanted: Snapshot,
}

/// The three sides. The repositories are those of the branch.
pub struct Sides<'a> {
    pub branch: &'a Snapshot,
    pub forge: &'a Snapshot,
    /// `None`: they never agreed on anything yet, so every difference counts as
    /// changed on both sides.
    pub agreed: Option<&'a Snapshot>,
}

/// Says what is to be done.
pub fn plan(caps: &Capabilities, sides: &Sides<'_>) -> Plan {
    let mut plan = Plan::default();
    for repo in &sides.branch.repos {
        plan.wanted.add_repo(repo);
    }
    let followed = |repo: &Repo| sides.branch.repos.contains(repo);
    let none = Snapshot::default();
    let agreed = sides.agreed.unwrap_or(&none);
    for (key, forge) in &sides.forge.prs {
        let (repo, number) = key;
        if !followed(repo) {
            continue;
        }
        let pr = match sides.branch.prs.get(key) {
            Some(branch) => {
                let rule = rule(caps.on(&Resource::Pr), sides);
                let old = agreed.prs.get(key);
                let merged = merge_pr(rule, branch, forge, old);
                let parts = Parts {
                    title: merged.title != forge.title,
                    state: merged.state != forge.state,
                    base: merged.base != forge.base,
                };
                if parts != Parts::default() {
                    let push = Push::Pr(repo.clone(), *number, merged.clone(), parts);
                    plan.pushes.push(push);
                }
                if caps.on(&Resource::Comment).writes() {
                    let new = unposted(repo, *number, &branch.drafts, forge, old);
                    let push = |draft| Push::Comment(repo.clone(), *number, draft);
                    plan.pushes.extend(new.into_iter().map(push));
                }
                merged
            }
            None => forge.clone(),
        };
        plan.wanted.add_pr(repo, *number, pr);
    }
    let statuses = keys(&sides.branch.statuses, &sides.forge.statuses);
    for key in statuses {
        let (repo, sha, context) = key;
        if !followed(repo) {
            continue;
        }
        let (branch, forge) = (
            sides.branch.statuses.get(key),
            sides.forge.statuses.get(key),
        );
        let rule = rule(caps.on(&Resource::Status(context)), sides);
        let status = match (branch, forge) {
            (Some(branch), forge)
                if rule.follows_branch(Some(branch), forge, agreed.statuses.get(key)) =>
            {
                let push = Push::Status(repo.clone(), sha.clone(), context.clone(), branch.clone());
                plan.pushes.push(push);
                branch
            }
            (_, Some(forge)) => forge,
            // GitHub forgets a status when nothing has its commit any more.
            (_, None) => continue,
        };
        plan.wanted.add_status(repo, sha, context, status.clone());
    }
    let refs = keys(&sides.branch.refs, &sides.forge.refs);
    for key in refs {
        let (repo, name) = key;
        if !followed(repo) {
            continue;
        }
        let (branch, forge) = (sides.branch.refs.get(key), sides.forge.refs.get(key));
        let rule = rule(caps.on(&Resource::Ref), sides);
        let old = agreed.refs.get(key);
        let removes = || {
            let others = sides.branch.refs.keys().any(|(of, _)| of == repo);
            others && old.is_some() && forge == old
        };
        let follows = rule.follows_branch(branch, forge, old) && (branch.is_some() || removes());
        let head = match follows {
            true => {
                plan.pushes.push(match branch {
                    Some(head) => Push::SetRef(repo.clone(), name.clone(), head.clone()),
                    None => Push::RemoveRef(repo.clone(), name.clone()),
                });
                branch
            }
            false => forge,
        };
        if let Some(head) = head {
            plan.wanted.add_ref(repo, name, head.clone());
        }
    }
    plan
}

impl Plan {
    /// Takes back what GitHub did not take: the branch goes on saying what it
    /// says, so that it is tried again.
    pub fn failed(&mut self, id: &Id, branch: &Snapshot) {
        self.wanted.remove(id);
        match id {
            Id::Pr(repo, number) => {
                if let Some(pr) = branch.prs.get(&(repo.clone(), *number)) {
                    self.wanted.add_pr(repo, *number, pr.clone());
                }
            }
            Id::Ref(repo, name) => {
                if let Some(head) = branch.refs.get(&(repo.clone(), name.clone())) {
                    self.wanted.add_ref(repo, name, head.clone());
                }
            }
            Id::Status(repo, sha, context) => {
                let key = (repo.clone(), sha.clone(), context.clone());
                if let Some(status) = branch.statuses.get(&key) {
                    self.wanted.add_status(repo, sha, context, status.clone());
                }
            }
            Id::Repo(_) | Id::Commit(..) => (),
        }
        self.wanted.forget_commits();
    }
}

/// Who wins of two that differ.
#[derive(Clone, Copy)]
struct Rule {
    ops: Ops,
    /// They never agreed on anything.
    first: bool,
}

fn rule(ops: Ops, sides: &Sides<'_>) -> Rule {
    Rule {
        ops,
        first: sides.agreed.is_none(),
    }
}

impl Rule {
    /// Tells whether the branch's value goes to GitHub.
    fn follows_branch<T: PartialEq + ?Sized>(
        self,
        branch: Option<&T>,
        forge: Option<&T>,
        agreed: Option<&T>,
    ) -> bool {
        let differ = branch != forge;
        let (here, there) = match self.first {
            true => (differ, differ),
            false => (branch != agreed, forge != agreed),
        };
        differ && self.ops.writes() && here && (!there || self.ops.excludes())
    }
}

fn merge_pr(rule: Rule, branch: &Pr, forge: &Pr, agreed: Option<&Pr>) -> Pr {
    let mut merged = forge.clone();
    let title = |pr: &Pr| pr.title.clone();
    if rule.follows_branch(
        Some(&branch.title),
        Some(&forge.title),
        agreed.map(title).as_ref(),
    ) {
        merged.title = branch.title.clone();
    }
    if rule.follows_branch(
        Some(&branch.state),
        Some(&forge.state),
        agreed.map(|pr| &pr.state),
    ) {
        merged.state = branch.state;
    }
    if rule.follows_branch(
        Some(&branch.base),
        Some(&forge.base),
        agreed.map(|pr| &pr.base),
    ) {
        merged.base = branch.base.clone();
    }
    merged
}

/// Returns the drafts that are to be posted. One that was posted right before a
/// crash is there already: it has its mark, and nobody has agreed on it yet.
fn unposted(
    repo: &Repo,
    number: u64,
    drafts: &[Vec<u8>],
    forge: &Pr,
    agreed: Option<&Pr>,
) -> Vec<Vec<u8>> {
    let known = |comment: &Comment| {
        let mut old = agreed.into_iter().flat_map(|pr| &pr.comments);
        old.any(|old| old.id == comment.id)
    };
    let mut fresh: Vec<&Comment> = forge.comments.iter().filter(|one| !known(one)).collect();
    let mut new = Vec::new();
    for draft in drafts {
        let marked = marked(repo, number, draft);
        match fresh.iter().position(|comment| comment.body == marked) {
            Some(place) => _ = fresh.swap_remove(place),
            None => new.push(draft.clone()),
        }
    }
    new
}

/// Returns what is posted: the comment, and a mark nobody sees by which it is
/// known again.
pub fn marked(repo: &Repo, number: u64, draft: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(format!("{repo} {number}\0"));
    hash.update(draft);
    let mark: String = hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut body = draft.to_vec();
    body.extend_from_slice(format!("\n\n<!-- dk {mark} -->").as_bytes());
    body
}

fn keys<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    a.keys().chain(b.keys()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::{PrState, StatusState, context};
    use crate::model::TreePath;

    fn repo() -> Repo {
        "test/test".parse().expect("legal")
    }

    /// A side that says one title, one status and one ref, each if given.
    fn side(title: &str, status: Option<StatusState>, head: Option<&str>) -> Snapshot {
        let mut side = Snapshot::default();
        side.add_pr(
            &repo(),
            1,
            Pr::new("foo", PrState::Open, title, "master", "me"),
        );
        if let Some(state) = status {
            let at = context("ci").expect("legal");
            side.add_status(&repo(), "foo", &at, Status::new(state, None, None));
        }
        if let Some(head) = head {
            let name = TreePath::new("heads/x").expect("legal");
            side.add_ref(&repo(), &name, head.into());
        }
        side
    }

    /// What follows: pushes in short, and what the branch is to say.
    fn done(
        caps: &str,
        branch: &Snapshot,
        forge: &Snapshot,
        agreed: Option<&Snapshot>,
    ) -> (Vec<String>, Snapshot) {
        let sides = Sides {
            branch,
            forge,
            agreed,
        };
        let plan = plan(&caps.parse().expect(caps), &sides);
        let short = |push: &Push| match push {
            Push::Pr(_, number, pr, _) => format!("pr {number} {}", pr.title),
            Push::Comment(_, number, draft) => {
                format!("comment {number} {}", String::from_utf8_lossy(draft))
            }
            Push::Status(_, sha, _, status) => format!("status {sha} {}", status.state.word()),
            Push::SetRef(_, name, sha) => format!("ref {name} {sha}"),
            Push::RemoveRef(_, name) => format!("no ref {name}"),
        };
        (plan.pushes.iter().map(short).collect(), plan.wanted)
    }

    #[test]
    fn who_changed_it_is_followed() {
        use StatusState::{Failure, Pending, Success};
        let old = side("a", Some(Pending), Some("1"));
        let new = side("b", Some(Success), Some("2"));
        let other = side("c", Some(Failure), Some("3"));
        let all = "*:rw,ref:rw";
        let pushed = ["pr 1 b", "status foo success", "ref heads/x 2"]
            .map(String::from)
            .to_vec();
        assert_eq!(
            done(all, &new, &old, Some(&old)),
            (pushed.clone(), new.clone())
        );
        assert_eq!(
            done(all, &old, &new, Some(&old)),
            (vec![], new.clone()),
            "GitHub changed it"
        );
        assert_eq!(
            done(all, &new, &other, Some(&old)),
            (vec![], other.clone()),
            "both: w"
        );
        assert_eq!(
            done("*:x,ref:x", &new, &other, Some(&old)),
            (pushed.clone(), new.clone()),
            "both: x"
        );
        assert_eq!(
            done("*:r", &new, &old, Some(&old)),
            (vec![], old.clone()),
            "put back"
        );
        assert_eq!(done(all, &new, &new, Some(&old)), (vec![], new.clone()));
        // The first time there is nothing to tell who changed it.
        assert_eq!(done(all, &new, &other, None), (vec![], other.clone()));
        assert_eq!(done("*:x,ref:x", &new, &other, None), (pushed, new));
    }

    #[test]
    fn what_comes_and_goes() {
        use StatusState::Success;
        let none = side("a", None, None);
        let some = side("a", Some(Success), Some("1"));
        let all = "*:rw,ref:rw";
        let made = ["status foo success", "ref heads/x 1"]
            .map(String::from)
            .to_vec();
        assert_eq!(done(all, &some, &none, Some(&none)), (made, some.clone()));
        // A status cannot be removed there, nor can all refs at once.
        assert_eq!(
            done(all, &none, &some, Some(&some)),
            (vec![], some.clone()),
            "a folder that is not there"
        );
        // One of several refs can.
        let other = TreePath::new("heads/y").expect("legal");
        let mut both = some.clone();
        both.add_ref(&repo(), &other, "1".into());
        let gone = vec!["no ref heads/y".to_owned()];
        assert_eq!(done(all, &some, &both, Some(&both)), (gone, some.clone()));
        for caps in [all, "ref:x"] {
            let kept = (vec![], both.clone());
            assert_eq!(done(caps, &some, &both, None), kept, "nobody agreed");
            let mut old = both.clone();
            old.add_ref(&repo(), &other, "0".into());
            let kept = done(caps, &some, &both, Some(&old));
            assert_eq!(kept, (vec![], both.clone()), "it moved there");
        }
        assert_eq!(
            done("*:rwx", &none, &some, Some(&some)),
            (vec![], some.clone()),
            "refs are asked for by name"
        );
        assert_eq!(
            done(all, &some, &none, Some(&some)),
            (vec![], none.clone()),
            "gone there"
        );
        let mut unfollowed = some;
        unfollowed.remove(&Id::Repo(repo()));
        assert_eq!(
            done(all, &unfollowed, &none, Some(&none)),
            (vec![], unfollowed)
        );
    }

    #[test]
    fn the_parts_of_a_pull_request_go_their_own_ways() {
        let old = side("a", None, None);
        let (mut branch, mut forge) = (old.clone(), old.clone());
        branch
            .prs
            .values_mut()
            .for_each(|pr| pr.title = "mine".into());
        forge.prs.values_mut().for_each(|pr| {
            pr.base = "next".into();
            pr.labels = vec!["theirs".into()];
        });
        let (pushes, wanted) = done("*:rw", &branch, &forge, Some(&old));
        assert_eq!(pushes, ["pr 1 mine"]);
        let pr = wanted.prs.values().next().expect("one");
        assert_eq!(
            (pr.title.as_str(), pr.base.as_str(), pr.labels.len()),
            ("mine", "next", 1)
        );
    }

    #[test]
    fn drafts_are_posted_where_that_is_allowed() {
        let old = side("a", None, None);
        let mut branch = old.clone();
        let draft = |pr: &mut Pr| pr.drafts = vec![b"x".into(), b"x".into()];
        branch.prs.values_mut().for_each(draft);
        let posts = |forge: &Snapshot, agreed: &Snapshot| {
            done("*:r,comment:rw", &branch, forge, Some(agreed)).0.len()
        };
        assert_eq!(posts(&old, &old), 2, "the same twice is said twice");
        let mut there = old.clone();
        let comment = Comment {
            id: 7,
            user: "me".into(),
            body: marked(&repo(), 1, b"x"),
        };
        let say = |pr: &mut Pr| pr.comments.push(comment.clone());
        there.prs.values_mut().for_each(say);
        assert_eq!(posts(&there, &old), 1, "one was posted before a crash");
        assert_eq!(posts(&there, &there), 2, "one was posted long ago");
        assert_eq!(
            done("*:r", &branch, &old, Some(&old)).0,
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_github_did_not_take_is_tried_again() {
        let (old, new) = (side("a", None, Some("1")), side("b", None, Some("2")));
        let sides = Sides {
            branch: &new,
            forge: &old,
            agreed: Some(&old),
        };
        let mut plan = plan(&"*:rw,ref:rw".parse().expect("legal"), &sides);
        let id = Id::Ref(repo(), TreePath::new("heads/x").expect("legal"));
        plan.failed(&id, &new);
        assert_eq!(plan.wanted, new, "the branch stays as it is");
    }
}
