//! Requests that may be asked about again, by whoever lost the answer.
//!
//! A request bears a name that nobody else would pick. What came of it is kept
//! for a while. Whoever asks for it before the request itself has come takes
//! that back: should it come later, it is refused. So the answer to who asks
//! stays true. Where nothing is known any more, that is said.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::model::Kind;
use crate::model::text::apply::{Operation, write_outcome};

use super::files::lock;
use super::node::{Error, Result};

/// Requests remembered.
const KEPT: usize = 8192;
/// Bytes of their results remembered, all together.
const BYTES: usize = 8 << 20;

/// What came of a request: nothing yet, and never anything once whoever would
/// tell is gone.
type Outcome = Option<Result<Vec<u8>>>;

/// The requests of a server, of all its connections.
pub struct Operations(Mutex<Known>);

struct Known {
    by_name: HashMap<String, One>,
    /// Oldest first.
    order: VecDeque<String>,
    bytes: usize,
    /// What came before may have been forgotten.
    since: Instant,
}

struct One {
    came: Instant,
    outcome: watch::Receiver<Outcome>,
    bytes: usize,
}

impl Default for Operations {
    fn default() -> Self {
        Self(Mutex::new(Known {
            by_name: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            since: Instant::now(),
        }))
    }
}

impl Operations {
    /// Does some work under a name, or tells what came of it.
    pub async fn run(
        &self,
        operation: &Operation,
        work: impl Future<Output = Result<Vec<u8>>>,
    ) -> Result<Vec<u8>> {
        if let Some(age) = operation.again {
            return Ok(self.tell(&operation.name, age).await);
        }
        let outcome = self.enter(&operation.name)?;
        let result = work.await;
        let bytes = result.as_ref().map_or(0, Vec::len);
        outcome.send_replace(Some(result.clone()));
        self.weigh(&operation.name, bytes);
        result
    }

    fn enter(&self, name: &str) -> Result<watch::Sender<Outcome>> {
        let mut known = lock(&self.0);
        if let Some(one) = known.by_name.get(name) {
            // Taken back, or a name that is no one's own.
            let given_up = one.outcome.has_changed().is_err() && one.outcome.borrow().is_none();
            let what = if given_up {
                "was given up"
            } else {
                "came twice"
            };
            let message = format!("the request of the name {name} {what}");
            return Err(Error::new(Kind::Interrupted, message));
        }
        let (sender, outcome) = watch::channel(None);
        known.add(name, outcome);
        Ok(sender)
    }

    fn weigh(&self, name: &str, bytes: usize) {
        let known = &mut *lock(&self.0);
        if let Some(one) = known.by_name.get_mut(name) {
            one.bytes += bytes;
            known.bytes += bytes;
        }
        known.trim();
    }

    async fn tell(&self, name: &str, age: Duration) -> Vec<u8> {
        let outcome = {
            let mut known = lock(&self.0);
            match known.by_name.get(name) {
                Some(one) => Some(one.outcome.clone()),
                None => {
                    let asked = Instant::now().checked_sub(age);
                    if asked.is_none_or(|asked| asked <= known.since) {
                        return write_outcome(None);
                    }
                    // Nobody will ever tell: it is taken back.
                    known.add(name, watch::channel(None).1);
                    None
                }
            }
        };
        let Some(mut outcome) = outcome else {
            return write_outcome(Some(None));
        };
        let told = outcome.wait_for(Option::is_some).await;
        let told = told.ok().and_then(|told| told.clone());
        write_outcome(Some(
            told.map(|result| result.map_err(|error| error.failure)),
        ))
    }
}

impl Known {
    fn add(&mut self, name: &str, outcome: watch::Receiver<Outcome>) {
        let one = One {
            came: Instant::now(),
            outcome,
            bytes: 0,
        };
        self.by_name.insert(name.into(), one);
        self.order.push_back(name.into());
        self.trim();
    }

    fn trim(&mut self) {
        while (self.order.len() > KEPT || self.bytes > BYTES)
            && let Some(name) = self.order.pop_front()
        {
            if let Some(one) = self.by_name.remove(&name) {
                self.bytes -= one.bytes;
                self.since = self.since.max(one.came);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::apply::read_outcome;

    fn named(name: &str, again: Option<Duration>) -> Operation {
        let name = name.into();
        Operation { name, again }
    }

    async fn asked(operations: &Operations, name: &str, age: Duration) -> String {
        let work = async { panic!("nothing is to be done") };
        let told = operations.run(&named(name, Some(age)), work).await;
        let told = told.expect("it is told");
        match read_outcome(&told).expect("an outcome") {
            None => "unknown".into(),
            Some(None) => "never".into(),
            Some(Some(Ok(result))) => String::from_utf8_lossy(&result).into_owned(),
            Some(Some(Err(failure))) => failure.message,
        }
    }

    /// Long enough after the start that it is known what came since.
    fn begun() -> Operations {
        let operations = Operations::default();
        let early = Instant::now().checked_sub(Duration::from_secs(60));
        lock(&operations.0).since = early.expect("the machine runs longer");
        operations
    }

    #[tokio::test]
    async fn who_lost_the_answer_is_told_it() {
        let operations = begun();
        let age = Duration::from_secs(1);
        let work = async { Ok(b"a result\n".to_vec()) };
        let done = operations.run(&named("a", None), work).await;
        assert_eq!(done.as_deref(), Ok(&b"a result\n"[..]));
        assert_eq!(asked(&operations, "a", age).await, "a result\n");
        let work = async { Err(Error::new(Kind::Exists, "it is there")) };
        let failed = operations.run(&named("b", None), work).await;
        assert!(failed.is_err());
        assert_eq!(asked(&operations, "b", age).await, "it is there");
        // One that is under way is waited for; one that is dropped never was.
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let work = async {
            let _ = gone.await;
            Ok(b"late".to_vec())
        };
        let name = named("c", None);
        let (done, told, ()) = tokio::join!(
            operations.run(&name, work),
            asked(&operations, "c", age),
            async { go.send(()).expect("it waits") }
        );
        assert_eq!(
            (done.unwrap_or_default(), told),
            (b"late".to_vec(), "late".into())
        );
        let name = named("d", None);
        let work = operations.run(&name, std::future::pending());
        let dropped = tokio::time::timeout(Duration::from_millis(1), work).await;
        assert!(dropped.is_err());
        assert_eq!(asked(&operations, "d", age).await, "never");
    }

    #[tokio::test]
    async fn what_was_given_up_is_refused_when_it_comes() {
        let operations = begun();
        let age = Duration::from_secs(1);
        assert_eq!(asked(&operations, "a", age).await, "never");
        let work = async { panic!("it was given up") };
        let late = operations.run(&named("a", None), work).await;
        assert_eq!(late.map_err(|error| error.kind()), Err(Kind::Interrupted));
        assert_eq!(asked(&operations, "a", age).await, "never");
    }

    #[tokio::test]
    async fn what_is_forgotten_is_not_denied() {
        let operations = begun();
        let hour = Duration::from_secs(3600);
        // Before this server began.
        assert_eq!(asked(&operations, "old", hour).await, "unknown");
        for number in 0..=KEPT {
            let work = async { Ok(Vec::new()) };
            let name = number.to_string();
            operations
                .run(&named(&name, None), work)
                .await
                .expect("done");
        }
        let age = Duration::from_secs(10);
        assert_eq!(asked(&operations, "0", age).await, "unknown");
        assert_eq!(asked(&operations, "1", age).await, "");
        for name in ["x", "y", "z"] {
            let work = async { Ok(vec![b'x'; BYTES / 2]) };
            operations
                .run(&named(name, None), work)
                .await
                .expect("done");
        }
        assert_eq!(asked(&operations, "1", age).await, "unknown");
        assert!(lock(&operations.0).bytes <= BYTES);
    }
}
