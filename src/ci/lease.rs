//! Which engine serves a store: a branch that only one of them holds.
//!
//! A lease is renewed while its engine runs and given back at its end. One
//! that was not renewed in time, or whose process is known to be gone, is
//! taken over. Every change expects the lease as it was read, so of two that
//! try at once one wins. The branch has one commit without parents, so it does
//! not grow.

use std::sync::Arc;

use crate::ci::Clock;
use crate::ci::files;
use crate::ci::layout::{self, Lease};
use crate::client::{Client, CommitOptions, Error, Expect, MoveOptions, Result};
use crate::model::{BranchName, Kind, ObjectId, Time};

/// Seconds a lease is valid without being renewed.
pub const VALID: i64 = 120;
/// Seconds after which it is renewed.
pub const RENEWED: i64 = 30;

/// Says of a holder on this machine whether it still runs; nothing where that
/// cannot be known.
pub type Runs = Arc<dyn Fn(&Lease) -> Option<bool> + Send + Sync>;

/// Who takes a lease.
#[derive(Clone)]
pub struct Holder {
    pub host: String,
    pub pid: u32,
    /// Tells this process from another one that had its number.
    pub life: String,
    pub runs: Runs,
}

/// A lease that is held.
pub struct Held {
    lease: Lease,
    head: ObjectId,
}

fn branch() -> BranchName {
    BranchName::new(layout::LEASE_BRANCH).expect("a legal name")
}

/// Reads the lease that stands; the commit alone where it cannot be read.
async fn standing(client: &dyn Client) -> Result<Option<(ObjectId, Option<Lease>)>> {
    let Some(head) = client.head(&branch()).await? else {
        return Ok(None);
    };
    let text = files::read(client, &head, layout::LEASE).await?;
    let lease = text.and_then(|text| serde_json::from_slice(&text).ok());
    Ok(Some((head, lease)))
}

/// Tells whether a lease keeps others from taking it.
fn stands(lease: &Lease, holder: &Holder, now: Time) -> bool {
    let gone = lease.host == holder.host && (holder.runs)(lease) == Some(false);
    !gone && now.seconds < lease.renewed.saturating_add(lease.valid)
}

impl Held {
    /// Takes the lease. Where another engine has it: [`Kind::Busy`], and who.
    pub async fn take(client: &dyn Client, clock: &dyn Clock, holder: &Holder) -> Result<Self> {
        let now = clock.now();
        let standing = standing(client).await?;
        if let Some((_, Some(lease))) = &standing
            && stands(lease, holder, now)
        {
            return Err(taken(lease));
        }
        let lease = Lease {
            engine: draw(holder, now),
            host: holder.host.clone(),
            pid: holder.pid,
            life: holder.life.clone(),
            since: now.seconds,
            renewed: now.seconds,
            valid: VALID,
        };
        let expect = standing.map_or(Expect::Unborn, |(head, _)| Expect::Head(head));
        let head = write(client, &lease, expect).await?;
        Ok(Self { lease, head })
    }

    /// Tells whether it is time to renew it.
    pub fn is_due(&self, now: Time) -> bool {
        now.seconds >= self.lease.renewed.saturating_add(RENEWED)
    }

    /// Renews the lease. Where another engine took it: [`Kind::Busy`].
    pub async fn renew(&mut self, client: &dyn Client, clock: &dyn Clock) -> Result<()> {
        let mut lease = self.lease.clone();
        lease.renewed = clock.now().seconds;
        match write(client, &lease, Expect::Head(self.head)).await {
            Ok(head) => {
                self.head = head;
                self.lease = lease;
                Ok(())
            }
            Err(error) if error.kind() == Kind::HeadMoved => {
                match standing(client).await? {
                    // It was written, and the answer did not come through.
                    Some((head, Some(other))) if other.engine == self.lease.engine => {
                        self.head = head;
                        self.lease = other;
                        Ok(())
                    }
                    Some((_, Some(other))) => Err(taken(&other)),
                    _ => Err(Error::new(
                        Kind::Busy,
                        format!("the lease of this store ({}) is gone", branch()),
                    )),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the lease back, so that the next engine need not wait.
    pub async fn release(self, client: &dyn Client) -> Result<()> {
        let options = MoveOptions {
            expect: Expect::Head(self.head),
            ..MoveOptions::default()
        };
        client.delete_branch(&branch(), options).await.map(|_| ())
    }
}

fn taken(lease: &Lease) -> Error {
    let since = layout::log_time(Time {
        seconds: lease.since,
        offset: 0,
    });
    Error::Other {
        kind: Kind::Busy,
        message: format!(
            "another engine serves this store: process {} on {}, since {since} UTC",
            lease.pid, lease.host
        ),
        hint: Some(format!(
            "end that one; if it died on another machine, wait {} s, or delete the branch {}",
            lease.valid,
            branch()
        )),
        source: None,
    }
}

/// Puts a commit without parents in place of the lease.
async fn write(client: &dyn Client, lease: &Lease, expect: Expect) -> Result<ObjectId> {
    let draft = BranchName::new(format!("{}-{}", layout::LEASE_BRANCH, lease.engine))?;
    if client.head(&draft).await?.is_some() {
        // Left by a renewal that did not come through.
        client.delete_branch(&draft, MoveOptions::default()).await?;
    }
    let content = serde_json::to_string(lease).expect("strings and numbers are JSON");
    let options = CommitOptions {
        message: Some(format!("Served by process {} on {}", lease.pid, lease.host).into_bytes()),
        expect: Expect::Unborn,
        ..CommitOptions::default()
    };
    let puts = vec![files::put(layout::LEASE, content)];
    let commit = client.edit(&draft, files::edits(puts), options).await?;
    let moved = MoveOptions {
        expect,
        ..MoveOptions::default()
    };
    let outcome = client.move_head(&branch(), &commit, moved).await;
    client.delete_branch(&draft, MoveOptions::default()).await?;
    outcome.map(|()| commit)
}

/// Returns a name for an engine that no other has.
fn draw(holder: &Holder, now: Time) -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut dice = std::collections::hash_map::RandomState::new().build_hasher();
    dice.write(holder.life.as_bytes());
    dice.write_i64(now.seconds);
    format!("{:016x}", dice.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(runs: Option<bool>) -> Holder {
        Holder {
            host: "h".into(),
            pid: 1,
            life: "1".into(),
            runs: Arc::new(move |_| runs),
        }
    }

    #[test]
    fn a_lease_stands_until_it_is_void_or_its_process_is_gone() {
        let lease = Lease {
            engine: "e".into(),
            host: "h".into(),
            pid: 2,
            life: "2".into(),
            since: 0,
            renewed: 100,
            valid: VALID,
        };
        let at = |seconds| Time { seconds, offset: 0 };
        assert!(stands(&lease, &holder(None), at(100 + VALID - 1)));
        assert!(!stands(&lease, &holder(None), at(100 + VALID)));
        assert!(stands(&lease, &holder(Some(true)), at(101)));
        assert!(!stands(&lease, &holder(Some(false)), at(101)));
        let elsewhere = Holder {
            host: "other".into(),
            ..holder(Some(false))
        };
        assert!(stands(&lease, &elsewhere, at(101)), "not ours to judge");
    }
}
