//! Who is at the other end: sessions, kept in memory and lost with it.
//!
//! There is a session only for those who came to a form. One that was not used
//! for `IDLE` is none any more, nor is one older than `LIFE`; logging in
//! gives a new one, so that an id somebody knew before is worth nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ci::config::Who;
use crate::forge::Repo;

/// A session lives on for so long after its last use.
const IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
/// And at most for so long.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// There are at most so many; the one not used for longest gives way, those
/// of nobody first.
const MOST: usize = 10_000;

/// Somebody who logged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `admin`, another local user, or `github:LOGIN`.
    pub name: String,
    /// Organisations at GitHub, in small letters, as they were at login.
    pub organisations: Vec<String>,
    /// Which repositories could be read then, of those that were asked for.
    pub repos: BTreeMap<Repo, bool>,
}

/// Whether somebody is among those that are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Yes,
    No,
    /// It was not asked at login: they have to log in again.
    Unknown,
}

impl User {
    pub fn is_admin(&self) -> bool {
        self.name == "admin"
    }
}

/// Tells whether a user is among `who`.
pub fn access(user: Option<&User>, who: &[Who]) -> Access {
    let mut unknown = false;
    for one in who {
        let found = match (one, user) {
            (Who::Everyone, _) => true,
            (_, None) => false,
            (Who::User(name), Some(user)) => match name.strip_prefix("github:") {
                // GitHub's names know no case.
                Some(_) => user.name.eq_ignore_ascii_case(name),
                None => user.name == *name,
            },
            (Who::Organisation(name), Some(user)) => {
                user.organisations.contains(&name.to_ascii_lowercase())
            }
            (Who::Readers(repo), Some(user)) => match user.repos.get(repo) {
                Some(readable) => *readable,
                None => {
                    unknown |= user.name.starts_with("github:");
                    false
                }
            },
        };
        if found {
            return Access::Yes;
        }
    }
    if unknown { Access::Unknown } else { Access::No }
}

/// What is known of one who is at the other end.
#[derive(Clone, Debug)]
pub struct Session {
    /// What the cookie holds.
    pub id: String,
    /// What every form has to bring.
    pub csrf: String,
    pub user: Option<User>,
    /// Where to go after logging in.
    pub wanted: Option<String>,
    begun: Instant,
    used: Instant,
}

impl Session {
    fn new(now: Instant) -> Self {
        Self {
            id: token::<32>(),
            csrf: token::<16>(),
            user: None,
            wanted: None,
            begun: now,
            used: now,
        }
    }
}

/// All sessions.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<String, Session>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the session with this id, and notes that it was used.
    pub fn get(&self, id: &str, now: Instant) -> Option<Session> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(id)?;
        if now.duration_since(session.used) > IDLE || now.duration_since(session.begun) > LIFE {
            sessions.remove(id);
            return None;
        }
        session.used = now;
        Some(session.clone())
    }

    /// Begins a session of nobody.
    pub fn begin(&self, now: Instant) -> Session {
        self.put(Session::new(now))
    }

    /// Remembers where somebody wanted to go.
    pub fn want(&self, id: &str, path: &str) {
        if let Some(session) = self.lock().get_mut(id) {
            session.wanted = Some(path.into());
        }
    }

    /// Ends a session and begins another, with a user or without.
    pub fn renew(&self, old: &str, user: Option<User>, now: Instant) -> Session {
        let wanted = self.lock().remove(old).and_then(|session| session.wanted);
        self.put(Session {
            user,
            wanted,
            ..Session::new(now)
        })
    }

    fn put(&self, session: Session) -> Session {
        let mut sessions = self.lock();
        if sessions.len() >= MOST {
            let dead = sessions
                .values()
                .min_by_key(|session| (session.user.is_some(), session.used))
                .map(|session| session.id.clone());
            dead.and_then(|id| sessions.remove(&id));
        }
        sessions.insert(session.id.clone(), session.clone());
        session
    }
}

/// Returns so many random bytes as text.
pub fn token<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("a system without random numbers keeps no secret");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Compares in the same time wherever they differ.
pub fn same(a: &str, b: &str) -> bool {
    use sha2::{Digest as _, Sha256};
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    a.iter().zip(b.iter()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// Slows down those who guess. Who failed `FREE` times waits twice as long
/// after every further failure.
#[derive(Default)]
pub struct Throttle(Mutex<HashMap<String, Failures>>);

struct Failures {
    count: u32,
    last: Instant,
}

/// Failures that cost nothing.
const FREE: u32 = 5;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Failures are forgotten after so long.
const FORGOTTEN: Duration = Duration::from_secs(3600);

impl Throttle {
    /// Returns how long this one has still to wait.
    pub fn wait(&self, who: &str, now: Instant) -> Option<Duration> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Failures { count, last } = failures.get(who)?;
        let over = count.checked_sub(FREE)?;
        let wait = LONGEST.min(Duration::from_secs(1 << over.min(20)));
        wait.checked_sub(now.duration_since(*last))
            .filter(|wait| !wait.is_zero())
    }

    /// Notes a failure, before it is known to be one: many tries at once
    /// count as many.
    pub fn failed(&self, who: &str, now: Instant) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MOST {
            failures.retain(|_, failures| now.duration_since(failures.last) < FORGOTTEN);
        }
        if failures.len() >= MOST {
            failures.clear();
        }
        let entry = failures.entry(who.into()).or_insert(Failures {
            count: 0,
            last: now,
        });
        if now.duration_since(entry.last) > FORGOTTEN {
            entry.count = 0;
        }
        entry.count += 1;
        entry.last = now;
    }

    /// Forgets the failures: it was the right one.
    pub fn passed(&self, who: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_when_idle_and_are_new_after_login() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let first = sessions.begin(now);
        sessions.want(&first.id, "/x");
        let user = User {
            name: "admin".into(),
            ..User::default()
        };
        let second = sessions.renew(&first.id, Some(user), now);
        assert!(first.id != second.id && first.csrf != second.csrf);
        assert!(sessions.get(&first.id, now).is_none());
        assert_eq!(second.wanted.as_deref(), Some("/x"));
        let mut then = now;
        // Used now and then, it lives on, but not for ever.
        for _ in 0..4 {
            then += IDLE;
            assert!(sessions.get(&second.id, then).is_some());
        }
        assert!(sessions.get(&second.id, then + IDLE).is_none());
        let third = sessions.begin(now);
        let late = now + IDLE + Duration::from_secs(1);
        assert!(sessions.get(&third.id, late).is_none());
        assert!(sessions.get(&third.id, now).is_none(), "it is gone");
    }

    #[test]
    fn the_session_nobody_used_gives_way() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let user = sessions.renew("", Some(User::default()), now);
        let oldest = sessions.begin(now + Duration::from_secs(1));
        for _ in 0..MOST {
            sessions.begin(now + Duration::from_secs(2));
        }
        assert_eq!(sessions.lock().len(), MOST);
        assert!(sessions.get(&user.id, now).is_some());
        assert!(sessions.get(&oldest.id, now).is_none());
    }

    #[test]
    fn guessing_becomes_slow() {
        let throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..FREE {
            assert_eq!(throttle.wait("a", now), None);
            throttle.failed("a", now);
        }
        assert_eq!(throttle.wait("a", now), Some(Duration::from_secs(1)));
        throttle.failed("a", now);
        assert_eq!(throttle.wait("a", now), Some(Duration::from_secs(2)));
        assert_eq!(throttle.wait("a", now + Duration::from_secs(2)), None);
        assert_eq!(throttle.wait("b", now), None);
        for _ in 0..100 {
            throttle.failed("a", now);
        }
        assert_eq!(throttle.wait("a", now), Some(LONGEST));
        throttle.passed("a");
        assert_eq!(throttle.wait("a", now), None);
    }

    #[test]
    fn who_may() {
        let repo: Repo = "me/project".parse().expect("legal");
        let user = |name: &str| User {
            name: name.into(),
            organisations: vec!["acme".into()],
            repos: BTreeMap::from([(repo.clone(), true)]),
        };
        let (admin, ann) = (user("admin"), user("github:Ann"));
        let other = Who::Readers("me/other".parse().expect("legal"));
        for (of, who, told) in [
            (None, Who::Everyone, Access::Yes),
            (None, Who::User("admin".into()), Access::No),
            (Some(&admin), Who::User("admin".into()), Access::Yes),
            (Some(&admin), Who::User("Admin".into()), Access::No),
            (Some(&ann), Who::User("github:ann".into()), Access::Yes),
            (Some(&ann), Who::User("ann".into()), Access::No),
            (Some(&ann), Who::Organisation("ACME".into()), Access::Yes),
            (Some(&ann), Who::Readers(repo.clone()), Access::Yes),
            (Some(&ann), other.clone(), Access::Unknown),
            (Some(&admin), other.clone(), Access::No),
        ] {
            assert_eq!(access(of, &[who]), told);
        }
        let any = [other, Who::User("github:ann".into())];
        assert_eq!(access(Some(&ann), &any), Access::Yes);
    }

    #[test]
    fn comparing_tells_same_from_other() {
        assert!(same("", "") && same("a", "a"));
        assert!(!same("a", "b") && !same("a", "ab") && !same("", "a"));
    }
}
