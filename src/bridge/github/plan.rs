//! What is to be done when the branch and GitHub differ: no I/O, one rule.
//!
//! Three values of each element decide: the branch's, GitHub's, and the last
//! one on which both agreed. Who changed it since then is followed; where both
//! did, `x` lets the branch win and everything else GitHub. What may not be
//! written to GitHub is put back in the branch.
//!
//! Of a pull request only title, state and base can be written, each by
//! itself, and the texts of the comments below its description; the rest is
//! always GitHub's. Nothing but a ref can be removed there, so what somebody
//! removed from the branch comes back. A ref is removed only where both sides
//! had agreed on it, GitHub has not moved it since, and the branch still has
//! another: a folder that is not there removes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::capabilities::{Capabilities, Ops, Resource};
use crate::forge::{Comment, Context, Id, Pr, RefName, Repo, Sha, Snapshot, Status};

mod pulls;

pub use pulls::{agreed_pr, marked};
use pulls::{edit_comments, merge_pr, unposted};

/// Something to be told to GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Sets parts of it.
    Pr(Repo, u64, Pr, Parts),
    /// Posts a comment.
    Comment(Repo, u64, Vec<u8>),
    /// Gives a comment that is there another text.
    Edit(Repo, u64, Comment),
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
            | Self::Edit(repo, ..)
            | Self::Status(repo, ..)
            | Self::SetRef(repo, ..)
            | Self::RemoveRef(repo, _) => repo,
        }
    }

    /// The element it is about.
    pub fn id(&self) -> Id {
        match self {
            Self::Pr(repo, number, ..)
            | Self::Comment(repo, number, _)
            | Self::Edit(repo, number, _) => Id::Pr(repo.clone(), *number),
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
                let may = rule(caps.on(&Resource::Pr), sides);
                let old = agreed.prs.get(key);
                let mut merged = merge_pr(may, branch, forge, old);
                let parts = Parts {
                    title: merged.title != forge.title,
                    state: merged.state != forge.state,
                    base: merged.base != forge.base,
                };
                if parts != Parts::default() {
                    let push = Push::Pr(repo.clone(), *number, merged.clone(), parts);
                    plan.pushes.push(push);
                }
                let may = rule(caps.on(&Resource::Comment), sides);
                if may.ops.writes() {
                    let edited = edit_comments(may, &mut merged, branch, old);
                    let push = |comment| Push::Edit(repo.clone(), *number, comment);
                    plan.pushes.extend(edited.into_iter().map(push));
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
    /// Takes back what GitHub did not take: of that the branch goes on saying
    /// what it says, so that it is tried again.
    pub fn failed(&mut self, push: &Push, branch: &Snapshot) {
        match push {
            // It is wanted as the branch has it; the rest of the pull request
            // is GitHub's all the same.
            Push::Pr(..) | Push::Edit(..) => return,
            Push::Comment(repo, number, draft) => {
                if let Some(pr) = self.wanted.prs.get_mut(&(repo.clone(), *number)) {
                    pr.drafts.push(draft.clone());
                }
                return;
            }
            Push::SetRef(repo, name, _) | Push::RemoveRef(repo, name) => {
                self.wanted.remove(&push.id());
                if let Some(head) = branch.refs.get(&(repo.clone(), name.clone())) {
                    self.wanted.add_ref(repo, name, head.clone());
                }
            }
            Push::Status(repo, sha, context, _) => {
                self.wanted.remove(&push.id());
                let key = (repo.clone(), sha.clone(), context.clone());
                if let Some(status) = branch.statuses.get(&key) {
                    self.wanted.add_status(repo, sha, context, status.clone());
                }
            }
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

fn keys<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    a.keys().chain(b.keys()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::{PrState, StatusState, context};
    use crate::model::TreePath;

    pub(super) fn repo() -> Repo {
        "test/test".parse().expect("legal")
    }

    /// A side that says one title, one status and one ref, each if given.
    pub(super) fn side(title: &str, status: Option<StatusState>, head: Option<&str>) -> Snapshot {
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
    pub(super) fn done(
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
            Push::Edit(_, number, comment) => {
                let text = String::from_utf8_lossy(&comment.body);
                format!("edit {number} {} {text}", comment.id)
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
    fn what_github_did_not_take_is_tried_again() {
        let (old, mut new) = (side("a", None, Some("1")), side("b", None, Some("2")));
        let draft = |pr: &mut Pr| pr.drafts = vec![b"said".into()];
        new.prs.values_mut().for_each(draft);
        let sides = Sides {
            branch: &new,
            forge: &old,
            agreed: Some(&old),
        };
        let mut plan = plan(&"*:rw,ref:rw".parse().expect("legal"), &sides);
        let pushes = std::mem::take(&mut plan.pushes);
        assert_eq!(pushes.len(), 3);
        for push in &pushes {
            plan.failed(push, &new);
        }
        assert_eq!(plan.wanted, new, "the branch stays as it is");
    }
}
