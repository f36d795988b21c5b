//! What a revision names.
//!
//! A name is tried as a branch, as a full id, as the beginning of an id, as
//! `HEAD` or a full ref name, and as a tag; the first that fits is it.

use std::collections::BTreeMap;

use crate::model::rev::Step;
use crate::model::{BranchName, ObjectId, Rev};

use super::engine::{HeadName, ObjectKind};
use super::history;
use super::objects::Objects;
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
    let missing = || Error::NotFound(format!("branch or commit \"{rev}\""));
    let mut id = base(objects, &rev.base)?.ok_or_else(missing)?;
    let mut buffer = Vec::new();
    let mut parent = |id: &ObjectId, nth: usize| {
        let node = history::node(objects, id, &mut buffer)?;
        node.parents.get(nth).copied().ok_or_else(missing)
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
        return peel(objects, &id);
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
fn peel(objects: &Objects, id: &ObjectId) -> Result<Option<ObjectId>> {
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
