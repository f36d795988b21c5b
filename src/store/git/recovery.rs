//! Setting right what dead processes left: their locks, and moves of several
//! heads that they had decided on and not finished.
//!
//! An intent names each head, its new value and the number of its lock. Where
//! the lock is still there the head has not moved: the lock holds the new value
//! and is put in place as its owner would have done. Where it is gone, the
//! head has moved, and whatever happened to it since is right. A dead owner's
//! locks are only ever removed after its intent was carried out.

use crate::model::ObjectId;
use crate::store::Result;
use crate::store::engine::HeadName;

use super::folders::remove_empty_dirs;
use super::lock::lock_path;
use super::moves::{Batch, Plan};
use super::refs::Refs;

/// Writes down what is going to be done with these plans' locks.
pub(super) fn intent(plans: &[Plan]) -> Vec<u8> {
    let mut text = Vec::new();
    for plan in plans {
        let Some(lock) = &plan.lock else { continue };
        let new = plan.new.map_or_else(|| "-".into(), |id| id.to_string());
        text.extend_from_slice(format!("{} {new} ", lock.number).as_bytes());
        text.extend_from_slice(&plan.target);
        text.push(b'\n');
    }
    // Without this line it was not written to its end, and nothing was done.
    text.extend_from_slice(b"end\n");
    text
}

struct Step {
    number: u64,
    new: Option<ObjectId>,
    target: Vec<u8>,
}

fn parse(intent: &[u8]) -> Option<Vec<Step>> {
    let text = intent.strip_suffix(b"end\n")?;
    let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(step).collect()
}

fn step(line: &[u8]) -> Option<Step> {
    let mut words = line.splitn(3, |b| *b == b' ');
    let number = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let new = match words.next()? {
        b"-" => None,
        hex => Some(ObjectId::from_hex(hex)?),
    };
    let target = words.next()?.to_vec();
    HeadName::from_full(&target)?;
    Some(Step {
        number,
        new,
        target,
    })
}

impl Refs {
    /// Clears away, once, what all dead processes left.
    pub(super) fn sweep(&self) {
        self.swept.call_once(|| {
            for owner in self.locks.owners() {
                // What cannot be cleared now is met again as a lock that is held.
                let _ = self.recover(&owner);
            }
        });
    }

    /// Counts the owners of locks that are dead.
    pub(super) fn dead_owners(&self) -> u64 {
        let owners = self.locks.owners().into_iter();
        let dead = owners.filter(|owner| matches!(self.locks.claim(owner), Ok(Some(_))));
        dead.count() as u64
    }

    /// Clears away what all dead owners left, and returns how many there were.
    pub(super) fn clear_dead_owners(&self) -> Result<u64> {
        let mut cleared = 0;
        for owner in self.locks.owners() {
            cleared += u64::from(self.recover(&owner)?);
        }
        Ok(cleared)
    }

    /// Clears away what one owner left, if it is dead, and returns whether it was.
    pub(super) fn recover(&self, owner: &str) -> Result<bool> {
        let Some(mut claim) = self.locks.claim(owner)? else {
            return Ok(false);
        };
        let steps = claim
            .intent()?
            .and_then(|intent| parse(&intent))
            .unwrap_or_default();
        let kept: Vec<u64> = steps.iter().map(|step| step.number).collect();
        claim.clear_except(&kept);
        let mut batch = Batch::new(self);
        for step in steps {
            let path = self.path(&step.target);
            if let Some(lock) = claim.adopt(step.number, &lock_path(&path)) {
                if step.new.is_some() && path.is_dir() && !remove_empty_dirs(&path) {
                    // Another ref took the place meanwhile: this can never be.
                    lock.release();
                    continue;
                }
                let old = self.resolve(&step.target)?.1;
                batch.plans.push(Plan {
                    target: step.target,
                    old,
                    new: step.new,
                    lock: Some(lock),
                });
            }
        }
        if !batch.plans.is_empty() {
            batch.lock_packed(&self.locks.owner()?)?;
            let applied = batch.apply(&mut false);
            self.notice.bump();
            applied?;
            for plan in &mut batch.plans {
                if let (None, Some(lock)) = (plan.new, plan.lock.take()) {
                    lock.release();
                }
            }
        }
        batch.close();
        claim.clear();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::model::HashKind;
    use crate::store::engine::Durability;

    fn refs(dir: &std::path::Path) -> Refs {
        fs::create_dir_all(dir.join("refs/heads")).unwrap();
        Refs::open(dir, dir, HashKind::Sha1, Durability::None).unwrap()
    }

    fn id(digit: &str) -> ObjectId {
        ObjectId::from_hex(digit.repeat(40).as_bytes()).unwrap()
    }

    fn heads(refs: &Refs) -> Vec<String> {
        let heads = refs.heads("refs/").unwrap();
        heads
            .iter()
            .map(|(name, id)| format!("{name} {}", &id.to_string()[..1]))
            .collect()
    }

    /// Does what a mover of several heads does until it is killed, having moved
    /// `moved` of them.
    fn killed_after(dir: &std::path::Path, moved: usize, decided: bool) {
        let refs = refs(dir);
        let owner = refs.locks.new_owner().unwrap();
        let mut plans = Vec::new();
        for (name, new) in [("a", Some(id("2"))), ("b/c", Some(id("2"))), ("gone", None)] {
            let target = format!("refs/heads/{name}").into_bytes();
            let content = new.map_or_else(String::new, |id: ObjectId| format!("{id}\n"));
            fs::create_dir_all(refs.path(&target).parent().unwrap()).unwrap();
            let lock = refs.lock_file(&owner, &refs.path(&target), content.into_bytes());
            let (old, lock) = (None, Some(lock.unwrap()));
            plans.push(Plan {
                target,
                old,
                new,
                lock,
            });
        }
        if decided {
            refs.locks.write_intent(&owner, &intent(&plans)).unwrap();
        }
        for plan in plans.iter_mut().take(moved) {
            let path = refs.path(&plan.target);
            plan.lock.as_mut().unwrap().commit(&path).unwrap();
        }
        owner.abandon();
    }

    #[test]
    fn a_decided_move_of_several_heads_is_finished_and_an_undecided_one_undone() {
        for (moved, decided) in [(0, false), (0, true), (1, true), (2, true)] {
            let dir = tempfile::tempdir().unwrap();
            let before = refs(dir.path());
            let packed = format!("# pack-refs with: sorted \n{} refs/heads/gone\n", id("1"));
            fs::write(dir.path().join("packed-refs"), packed).unwrap();
            fs::write(dir.path().join("refs/heads/a"), format!("{}\n", id("1"))).unwrap();
            assert_eq!(heads(&before), ["refs/heads/a 1", "refs/heads/gone 1"]);
            killed_after(dir.path(), moved, decided);

            drop(refs(dir.path()).turn().unwrap());
            let wanted = if decided {
                ["refs/heads/a 2", "refs/heads/b/c 2"]
            } else {
                ["refs/heads/a 1", "refs/heads/gone 1"]
            };
            assert_eq!(heads(&before), wanted, "{moved} moved, decided: {decided}");
            let left = names(&dir.path().join("dk/locks"));
            assert!(left.is_empty(), "{left:?}");
            assert!(!dir.path().join("refs/heads/gone.lock").exists());
            assert!(!dir.path().join("packed-refs.lock").exists());
        }
    }

    fn names(dir: &std::path::Path) -> BTreeSet<std::ffi::OsString> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn what_happened_to_a_moved_head_since_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let before = refs(dir.path());
        killed_after(dir.path(), 1, true);
        fs::write(dir.path().join("refs/heads/a"), format!("{}\n", id("3"))).unwrap();
        drop(refs(dir.path()).turn().unwrap());
        assert_eq!(heads(&before), ["refs/heads/a 3", "refs/heads/b/c 2"]);
    }

    #[test]
    fn half_an_intent_is_none() {
        assert!(parse(b"0 - refs/heads/a\n").is_none());
        assert!(parse(b"0 - refs/heads/../../x\nend\n").is_none());
        assert_eq!(parse(b"end\n").map(|steps| steps.len()), Some(0));
    }
}
