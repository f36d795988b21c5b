//! What of a pull request follows which side: title, state, base, and each
//! comment by itself.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::Rule;
use crate::forge::{Comment, Pr, Repo};
use crate::model::text::hex;

/// Returns a pull request as the branch is to have it: GitHub's, with those of
/// title, state and base that follow the branch.
pub(super) fn merge_pr(rule: Rule, branch: &Pr, forge: &Pr, agreed: Option<&Pr>) -> Pr {
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

/// Lets comments have the texts the branch gave them, and returns those. One
/// without a text in the branch, or not there any more, stays as it is.
pub(super) fn edit_comments(
    rule: Rule,
    merged: &mut Pr,
    branch: &Pr,
    agreed: Option<&Pr>,
) -> Vec<Comment> {
    let (branch, agreed) = (texts(branch), agreed.map(texts).unwrap_or_default());
    let mut edited = Vec::new();
    for comment in merged.comments.iter_mut().filter(|comment| comment.id != 0) {
        let said = branch.get(&comment.id).copied();
        let said = said.filter(|text| !text.trim_ascii().is_empty());
        let old = agreed.get(&comment.id).copied();
        if let Some(said) = said
            && rule.follows_branch(Some(said), Some(&comment.body), old)
        {
            comment.body = said.to_vec();
            edited.push(comment.clone());
        }
    }
    edited
}

/// Returns the texts of comments by their ids.
fn texts(pr: &Pr) -> BTreeMap<u64, &[u8]> {
    let comments = pr.comments.iter();
    comments
        .map(|comment| (comment.id, &*comment.body))
        .collect()
}

/// Returns what both sides agree on of a pull request: what the branch is to
/// say where GitHub says so too, and what they agreed on before where it does
/// not. Nothing if they never did.
pub fn agreed_pr(wanted: &Pr, forge: &Pr, before: Option<&Pr>) -> Option<Pr> {
    if wanted == forge {
        return Some(forge.clone());
    }
    let before = before?;
    let mut agreed = forge.clone();
    if wanted.title != forge.title {
        agreed.title = before.title.clone();
    }
    if wanted.state != forge.state {
        agreed.state = before.state;
        agreed.closed_at = before.closed_at.clone();
    }
    if wanted.base != forge.base {
        agreed.base = before.base.clone();
    }
    let (wanted, before) = (texts(wanted), texts(before));
    agreed.comments.retain_mut(|comment| {
        if wanted.get(&comment.id) == Some(&&*comment.body) {
            return true;
        }
        let old = before.get(&comment.id);
        if let Some(old) = old {
            comment.body = old.to_vec();
        }
        old.is_some()
    });
    Some(agreed)
}

/// Returns the drafts that are to be posted. One that was posted right before a
/// crash is there already: it has its mark, and nobody has agreed on it yet.
pub(super) fn unposted(
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
    let mark = hex(&hash.finalize()[..8]);
    let mut body = draft.to_vec();
    body.extend_from_slice(format!("\n\n<!-- dk {mark} -->").as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::super::tests::{done, repo, side};
    use super::*;
    use crate::forge::Snapshot;

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

    /// Of comments 7 and 8 and the description, so many, with these texts.
    fn said(texts: [&str; 3]) -> Snapshot {
        let mut side = side("a", None, None);
        let comments = texts.iter().zip([0, 7, 8]).map(|(text, id)| Comment {
            id,
            user: "somebody".into(),
            body: text.as_bytes().into(),
        });
        let comments: Vec<Comment> = comments.filter(|one| one.body != b"-").collect();
        side.prs
            .values_mut()
            .for_each(|pr| pr.comments = comments.clone());
        side
    }

    #[test]
    fn texts_of_comments_travel_as_anything_does() {
        let old = said(["d", "x", "y"]);
        let (mine, theirs) = (said(["d", "mine", "y"]), said(["d", "theirs", "y"]));
        let may = "*:r,comment:rw";
        let told = |text: &str| vec![format!("edit 1 7 {text}")];
        assert_eq!(
            done(may, &mine, &old, Some(&old)),
            (told("mine"), mine.clone())
        );
        let kept = |caps: &str, branch: &Snapshot, forge: &Snapshot, agreed: Option<&Snapshot>| {
            assert_eq!(
                done(caps, branch, forge, agreed),
                (vec![], forge.clone()),
                "{caps}"
            );
        };
        kept("*:rw,comment:r", &mine, &old, Some(&old));
        kept(may, &old, &theirs, Some(&old));
        // Both did, or nobody knows who: w and x differ.
        let x = "*:r,comment:x";
        for agreed in [Some(&old), None] {
            kept(may, &mine, &theirs, agreed);
            assert_eq!(
                done(x, &mine, &theirs, agreed),
                (told("mine"), mine.clone())
            );
        }
        // Each by itself.
        let (first, second) = (said(["d", "mine", "y"]), said(["d", "x", "theirs"]));
        let both = said(["d", "mine", "theirs"]);
        assert_eq!(done(may, &first, &second, Some(&old)), (told("mine"), both));
        // What is removed or said no more comes back, and the description is
        // GitHub's; what is gone there stays gone.
        for changed in [
            ["d", "-", "y"],
            ["d", "x", "-"],
            ["d", " \n", "y"],
            ["mine", "x", "y"],
        ] {
            kept("*:x", &said(changed), &old, Some(&old));
        }
        kept("*:x", &mine, &said(["d", "-", "y"]), Some(&old));
    }

    #[test]
    fn what_one_side_did_not_take_is_agreed_on_as_before() {
        let pr = |side: &Snapshot| side.prs.values().next().cloned().expect("one");
        let old = pr(&said(["d", "x", "y"]));
        let (mut wanted, mut forge) = (pr(&said(["e", "mine", "z"])), pr(&said(["e", "x", "z"])));
        (wanted.title, forge.base) = ("mine".into(), "next".into());
        wanted.base = forge.base.clone();
        let agreed = agreed_pr(&wanted, &forge, Some(&old)).expect("as before");
        let mut expected = pr(&said(["e", "x", "z"]));
        expected.base = "next".into();
        assert_eq!(agreed, expected);
        assert_eq!(agreed_pr(&wanted, &forge, None), None);
        assert_eq!(agreed_pr(&forge, &forge, None), Some(forge.clone()));
        let never = pr(&said(["d", "-", "y"]));
        let agreed = agreed_pr(&wanted, &forge, Some(&never)).expect("in parts");
        assert_eq!(agreed.comments, pr(&said(["e", "-", "z"])).comments);
    }
}
