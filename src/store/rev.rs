//! What a revision names.
//!
//! A name is tried as a branch, as a full id, as the beginning of an id, as
//! `HEAD` or a full ref name, and as a tag; the first that fits is it.

use std::collections::BTreeMap;

use crate::model::rev::Step;
use crate::model::{BranchName, ObjectId, Rev};

use super::engine::{HeadName, ObjectKind};
use super::history;
use super::objects::{Objects, corrupt};
use super::{Error, Result};

/// Digits of an id that are taken for one. Git asks for as many.
const SHORTEST: usize = 4;
/// Tags of tags that are followed.
const TAGS: usize = 64;

/// Returns the commit a revision names; tags lead to theirs.
///
/// # Errors
///
/// [`Error::NotFound`] where it names none, or has no such ancestor;
/// [`Error::Ambiguous`] where a shortened id fits several commits.
pub fn resolve(objects: &Objects, rev: &Rev) -> Result<ObjectId> {
    let missing = || {
        // An odd name comes in quotes of its own.
        let shown = match rev.to_string() {
            quoted if quoted.starts_with('"') => quoted,
            plain => format!("\"{plain}\""),
        };
        Error::NotFound(format!("branch or commit {shown}"))
    };
    let mut id = base(objects, &rev.base)?.ok_or_else(missing)?;
    let mut buffer = Vec::new();
    let mut parent = |id: &ObjectId, nth: usize| {
        let node = history::node(objects, id, &mut buffer)?;
        let parent = node.parents.get(nth).copied().ok_or_else(missing)?;
        match objects.engine.header(&parent)? {
            Some(_) => Ok(parent),
            None => Err(corrupt(
                &parent,
                &format!("it is missing, and {id} names it"),
            )),
        }
    };
    for step in &rev.steps {
        match *step {
            Step::Ancestor(count) => {
                for _ in 0..count {
                    id = parent(&id, 0)?;
                }
            }
            Step::Parent(0) => {}
            Step::Parent(nth) => id = parent(&id, nth as usize - 1)?,
        }
    }
    Ok(id)
}

fn base(objects: &Objects, name: &[u8]) -> Result<Option<ObjectId>> {
    if let Ok(branch) = BranchName::new(name)
        && let Some(id) = objects.engine.head(&HeadName::branch(&branch))?
    {
        return match objects.engine.header(&id)? {
            None => Err(missing_head(&branch, &id)),
            Some((ObjectKind::Commit, _)) => Ok(Some(id)),
            Some(_) => peel(objects, &id),
        };
    }
    let digits = objects.hash_kind().id_len() * 2;
    if (SHORTEST..=digits).contains(&name.len()) && name.iter().all(u8::is_ascii_hexdigit) {
        let found = match ObjectId::from_hex(name).filter(|_| name.len() == digits) {
            Some(id) => peel(objects, &id)?,
            None => shortened(objects, name)?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    if name == b"HEAD" || name.starts_with(b"refs/") {
        return by_ref(objects, name);
    }
    by_ref(objects, &[b"refs/tags/", name].concat())
}

/// Returns the commit whose id begins so, or that a tag's does.
fn shortened(objects: &Objects, name: &[u8]) -> Result<Option<ObjectId>> {
    let prefix = String::from_utf8_lossy(name).to_ascii_lowercase();
    let mut limit = 1024;
    let ids = loop {
        let ids = objects.engine.with_prefix(&prefix, limit)?;
        if ids.len() < limit {
            break ids;
        }
        limit *= 8;
    };
    // By the commit each leads to: a tag and its commit are one answer.
    let mut commits = BTreeMap::new();
    for id in ids {
        if let Some(commit) = peel(objects, &id)? {
            commits.entry(commit).or_insert(id);
        }
    }
    if commits.len() > 1 {
        let mut ids: Vec<String> = commits.values().map(ToString::to_string).collect();
        ids.sort_unstable();
        return Err(Error::Ambiguous { prefix, ids });
    }
    Ok(commits.into_keys().next())
}

/// What is wrong where a branch names what is not there.
pub(super) fn missing_head(branch: &BranchName, id: &ObjectId) -> Error {
    corrupt(id, &format!("it is missing, and branch {branch} names it"))
}

fn by_ref(objects: &Objects, name: &[u8]) -> Result<Option<ObjectId>> {
    if let Some(repository) = objects.engine.repository() {
        let Ok(name) = std::str::from_utf8(name) else {
            return Ok(None);
        };
        // Asking for a name that no ref can have is no failure.
        if name == "HEAD" || HeadName::from_full(name.as_bytes()).is_some() {
            return repository.peel(name);
        }
        return Ok(None);
    }
    let Some(name) = HeadName::from_full(name) else {
        return Ok(None);
    };
    match objects.engine.head(&name)? {
        Some(id) => peel(objects, &id),
        None => Ok(None),
    }
}

/// Follows tags to a commit; nothing where they lead to none.
pub fn peel(objects: &Objects, id: &ObjectId) -> Result<Option<ObjectId>> {
    let mut id = *id;
    let mut raw = Vec::new();
    for _ in 0..TAGS {
        match objects.engine.header(&id)? {
            Some((ObjectKind::Commit, _)) => return Ok(Some(id)),
            Some((ObjectKind::Tag, _)) => {}
            _ => return Ok(None),
        }
        objects.engine.find(&id, &mut raw)?;
        let line = raw.split(|b| *b == b'\n').next().unwrap_or_default();
        match line.strip_prefix(b"object ").and_then(ObjectId::from_hex) {
            Some(target) => id = target,
            None => return Ok(None),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Commit, HashKind, Kind, Signature, text};
    use crate::store::engine::{Expected, HeadMove, MoveNote};
    use crate::store::memory::Memory;
    use crate::store::objects::{Fresh, write_commit};

    struct Case {
        objects: Objects,
        fresh: Fresh,
    }

    fn who() -> Signature {
        text::read_signature(b"A <a@b> 1 +0000")
    }

    impl Case {
        fn new() -> Self {
            Self {
                objects: Objects::new(Arc::new(Memory::new(HashKind::Sha1))),
                fresh: Fresh::default(),
            }
        }

        fn add(&mut self, kind: ObjectKind, data: Vec<u8>) -> ObjectId {
            self.fresh.add(HashKind::Sha1, kind, data).unwrap()
        }

        fn commit(&mut self, message: &str, parents: &[ObjectId]) -> ObjectId {
            let tree = self.objects.empty_tree();
            let commit = Commit {
                id: tree,
                tree,
                parents: parents.to_vec(),
                author: who(),
                committer: who(),
                message: message.into(),
            };
            self.add(ObjectKind::Commit, write_commit(&commit))
        }

        fn tag(&mut self, target: &ObjectId, kind: &str, name: &str) -> ObjectId {
            let text = format!("object {target}\ntype {kind}\ntag {name}\n\n");
            self.add(ObjectKind::Tag, text.into_bytes())
        }

        /// Writes what was made, and gives names to some of it.
        fn write(&self, names: &[(&str, ObjectId)]) {
            self.objects.engine.write(self.fresh.objects()).unwrap();
            let moves: Vec<HeadMove> = names
                .iter()
                .map(|(name, id)| HeadMove {
                    name: HeadName::from_full(name.as_bytes()).unwrap(),
                    expected: Expected::Any,
                    new: Some(*id),
                })
                .collect();
            let note = MoveNote {
                who: who(),
                message: String::new(),
            };
            self.objects.engine.move_heads(&moves, &note, &[]).unwrap();
        }

        fn resolve(&self, rev: &str) -> Result<ObjectId> {
            resolve(&self.objects, &Rev::new(rev).unwrap())
        }
    }

    #[test]
    fn names_are_tried_in_order() {
        let mut case = Case::new();
        let root = case.commit("root", &[]);
        let side = case.commit("side", &[]);
        let merge = case.commit("merge", &[root, side]);
        let inner = case.tag(&merge, "commit", "inner");
        let tag = case.tag(&inner, "tag", "outer");
        let blob = case.add(ObjectKind::Blob, b"blob".to_vec());
        let blob_tag = case.tag(&blob, "blob", "blob");
        let id = merge.to_string();
        // A branch that looks like an id wins over it.
        let like_an_id = &root.to_string()[..6];
        case.write(&[
            ("refs/heads/main", merge),
            ("refs/heads/a/b", side),
            (&format!("refs/heads/{like_an_id}"), side),
            ("refs/tags/v1", tag),
            ("refs/tags/blob", blob_tag),
            ("refs/notes/x", root),
        ]);
        for (rev, wanted) in [
            ("main", merge),
            ("a/b", side),
            (like_an_id, side),
            (&id, merge),
            (&id.to_uppercase(), merge),
            (&id[..7], merge),
            (&tag.to_string(), merge),
            (&tag.to_string()[..9], merge),
            ("v1", merge),
            ("refs/tags/v1", merge),
            ("refs/heads/main", merge),
            ("refs/notes/x", root),
            ("main~", root),
            ("main^2", side),
            ("main^0", merge),
            ("main^2~0", side),
        ] {
            assert_eq!(case.resolve(rev).unwrap(), wanted, "{rev}");
        }
        let unknown = "12".repeat(20);
        for rev in [
            "nobody",
            "main~2",
            "main^3",
            "blob",
            "HEAD",
            "refs/heads/none",
            "refs/",
            "refs/a..b",
            "x y",
            &unknown,
            &"12".repeat(32),
            &blob.to_string(),
            &blob.to_string()[..8],
            &id[..3],
        ] {
            let error = case.resolve(rev).unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound, "{rev}");
            let wanted = format!("branch or commit \"{rev}\" does not exist");
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn short_ids_of_several_commits_are_ambiguous() {
        let mut case = Case::new();
        // Enough commits for two to begin alike, by the birthday rule.
        let ids: Vec<ObjectId> = (0..500).map(|n| case.commit(&n.to_string(), &[])).collect();
        for n in 0..1500 {
            case.add(ObjectKind::Blob, format!("{n}").into_bytes());
        }
        case.write(&[]);
        let mut seen = BTreeMap::<String, Vec<String>>::new();
        for id in ids.iter().map(ToString::to_string) {
            seen.entry(id[..4].to_string()).or_default().push(id);
        }
        let (mut ambiguous, mut single) = (0, 0);
        for (prefix, mut ids) in seen {
            ids.sort_unstable();
            match case.resolve(&prefix) {
                Ok(id) => {
                    single += 1;
                    assert_eq!(vec![id.to_string()], ids);
                }
                Err(Error::Ambiguous {
                    prefix: said,
                    ids: found,
                }) => {
                    ambiguous += 1;
                    assert_eq!((said, found), (prefix, ids));
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(ambiguous > 0 && single > 0);
    }

    #[test]
    fn a_tag_and_its_commit_are_one_answer() {
        let mut case = Case::new();
        let commit = case.commit("1", &[]);
        let begin = commit.to_string()[..4].to_string();
        let tag = (0..)
            .map(|n| case.tag(&commit, "commit", &format!("v{n}")))
            .find(|tag| tag.to_string().starts_with(&begin))
            .unwrap();
        assert_ne!(tag, commit);
        case.write(&[]);
        assert_eq!(case.resolve(&begin).unwrap(), commit);
    }
}
