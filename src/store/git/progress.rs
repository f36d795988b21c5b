//! Passing on what gix tells of its progress.
//!
//! gix wants a progress that lives as long as it likes, and counts in shared
//! counters. So work runs on a thread of its own, with a [`Teller`]; the thread
//! that waits for it reads the counters now and then and tells the caller, and
//! asks whether the work is still wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use gix::progress::{
    Count, Id, MessageLevel, NestedProgress, Progress as GixProgress, Step, StepShared, UNKNOWN,
    Unit,
};

use crate::model::request::Progress;

use super::programs::counted;

/// How often counters are read.
const PERIOD: Duration = Duration::from_millis(100);

/// Runs `work` on a thread of its own and tells `progress` how far it has come.
/// The flag is set when nobody wants the outcome any more.
pub(super) fn relay<T: Send>(
    progress: &dyn Progress,
    work: impl FnOnce(Teller, &AtomicBool) -> T + Send,
) -> T {
    let (events, inbox) = mpsc::channel();
    let cancelled = AtomicBool::new(false);
    thread::scope(|scope| {
        let flag = &cancelled;
        let worker = scope.spawn(move || work(Teller::new(events, String::new(), UNKNOWN), flag));
        listen(progress, &inbox, &cancelled, || worker.is_finished());
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Tells `progress` what comes in, until nobody can or will send any more.
fn listen(
    progress: &dyn Progress,
    inbox: &mpsc::Receiver<Event>,
    cancelled: &AtomicBool,
    ended: impl Fn() -> bool,
) {
    let mut part: Option<(StepShared, usize)> = None;
    loop {
        let event = inbox.recv_timeout(PERIOD);
        cancelled.store(progress.is_cancelled(), Ordering::Relaxed);
        if let Some((counter, told)) = &mut part {
            let done = counter.load(Ordering::Relaxed);
            if done > *told {
                progress.advance((done - *told) as u64);
                *told = done;
            }
        }
        match event {
            Ok(Event::Part {
                name,
                total,
                counter,
            }) => {
                progress.begin(&name, total.map(|total| total as u64), false);
                part = Some((counter, 0));
            }
            Ok(Event::Line(line)) => progress.line(&line),
            Err(RecvTimeoutError::Timeout) if !ended() => {}
            Err(_) => return,
        }
    }
}

enum Event {
    Part {
        name: String,
        total: Option<usize>,
        counter: StepShared,
    },
    Line(String),
}

/// What gix is given to tell its progress to.
pub(super) struct Teller {
    events: mpsc::Sender<Event>,
    name: String,
    id: Id,
    counter: StepShared,
    total: Option<usize>,
    unit: Option<Unit>,
    /// What the server said, until it is clear whether it counts something.
    said: Option<String>,
    /// What the server counts.
    phase: String,
}

/// The child that carries what the server says.
const REMOTE: Id = *b"FERP";
const SAID: &str = "remote: ";
/// What git's servers count. Their words come in packets that may begin and end
/// in the middle of one, and gix hands on each by itself.
const PHASES: [&str; 3] = [
    "Enumerating objects",
    "Counting objects",
    "Compressing objects",
];

impl Teller {
    fn new(events: mpsc::Sender<Event>, name: String, id: Id) -> Self {
        Self {
            events,
            name,
            id,
            counter: Arc::new(AtomicUsize::new(0)),
            total: None,
            unit: None,
            said: None,
            phase: String::new(),
        }
    }

    /// What the part is called, if it is one to be shown: gix has many more,
    /// several at a time.
    fn shown_name(&self) -> Option<&str> {
        match self.name.as_str() {
            "indexing" => Some("receiving objects"),
            "Resolving" => Some("resolving deltas"),
            _ if self.id == REMOTE => Some(&self.phase),
            _ => None,
        }
    }

    /// Passes on what the server said, if that was a line of text.
    fn flush(&mut self) {
        let said = self.said.take().unwrap_or_default();
        let Some(said) = said.strip_prefix(SAID) else {
            return;
        };
        for line in said.split(['\r', '\n']).map(str::trim) {
            let begins = |phase: &&str| phase.starts_with(line);
            if !line.is_empty() && !PHASES.iter().any(begins) && counted(line).is_none() {
                let _ = self.events.send(Event::Line(format!("{SAID}{line}")));
            }
        }
    }

    /// Returns what the server counts, by the name it gave it, whole or cut.
    fn phase(said: &str) -> Option<String> {
        let name = said.strip_prefix(SAID)?.rsplit(['\r', '\n']).next()?.trim();
        let mut like = PHASES.iter().filter(|phase| phase.ends_with(name));
        match (like.next(), like.next()) {
            (Some(phase), None) => Some(format!("{SAID}{phase}")),
            // Cut so short that it could be any: it will be said again.
            (Some(_), Some(_)) => None,
            (None, _) if name.starts_with(|c: char| c.is_uppercase()) => {
                Some(format!("{SAID}{name}"))
            }
            (None, _) => None,
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Count for Teller {
    fn set(&self, step: Step) {
        self.counter.store(step, Ordering::Relaxed);
    }

    fn step(&self) -> Step {
        self.counter.load(Ordering::Relaxed)
    }

    fn inc_by(&self, step: Step) {
        self.counter.fetch_add(step, Ordering::Relaxed);
    }

    fn counter(&self) -> StepShared {
        Arc::clone(&self.counter)
    }
}

impl GixProgress for Teller {
    fn init(&mut self, max: Option<Step>, unit: Option<Unit>) {
        self.unit = unit;
        if self.id == REMOTE {
            let phase = self.said.take().and_then(|said| Self::phase(&said));
            match phase {
                // It repeats the name with every number.
                Some(phase) if phase != self.phase || max != self.total => self.phase = phase,
                _ => return,
            }
        }
        self.total = max;
        self.counter = Arc::new(AtomicUsize::new(0));
        if let Some(name) = self.shown_name() {
            let _ = self.events.send(Event::Part {
                name: name.to_owned(),
                total: max,
                counter: Arc::clone(&self.counter),
            });
        }
    }

    fn unit(&self) -> Option<Unit> {
        self.unit.clone()
    }

    fn max(&self) -> Option<Step> {
        self.total
    }

    fn set_name(&mut self, name: String) {
        if self.id == REMOTE {
            self.flush();
            self.said = Some(name.clone());
        }
        self.name = name;
    }

    fn name(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn id(&self) -> Id {
        self.id
    }

    fn message(&self, level: MessageLevel, message: String) {
        if level == MessageLevel::Failure {
            let _ = self.events.send(Event::Line(message));
        }
    }
}

impl NestedProgress for Teller {
    type SubProgress = Self;

    fn add_child(&mut self, name: impl Into<String>) -> Self {
        self.add_child_with_id(name, UNKNOWN)
    }

    fn add_child_with_id(&mut self, name: impl Into<String>, id: Id) -> Self {
        Self::new(self.events.clone(), name.into(), id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use gix::protocol::RemoteProgress;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Progress for Told {
        fn begin(&self, part: &str, total: Option<u64>, _: bool) {
            self.0.lock().unwrap().push(format!("{part} of {total:?}"));
        }
        fn advance(&self, by: u64) {
            self.0.lock().unwrap().push(format!("+{by}"));
        }
        fn line(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }

    #[test]
    fn what_a_server_says_is_understood_wherever_its_packets_are_cut() {
        let told = Told::default();
        relay(&told, |mut teller, _| {
            let mut remote = teller.add_child_with_id("remote", REMOTE);
            for packet in [
                &b"Enumerating objects: 90, done."[..],
                b"Countin",
                b"g objects:   1% (1/90)\rCounting objects:  ",
                b"Counting objects:  50% (45/90)",
                b"Counting objects: 100% (90/90), done.",
                b"Welcome to this server",
                b"Total 90 (delta 28), reused 0 (delta 0), pack-reused 0 (from 0)",
                b"Finding sources: 100% (3/3)",
            ] {
                RemoteProgress::translate_to_progress(false, packet, &mut remote);
            }
        });
        let told = told.0.into_inner().unwrap();
        let told: Vec<_> = told.iter().filter(|it| !it.starts_with('+')).collect();
        assert_eq!(
            told,
            [
                "remote: Enumerating objects of None",
                "remote: Counting objects of Some(90)",
                "remote: Welcome to this server",
                "remote: Total 90 (delta 28), reused 0 (delta 0), pack-reused 0 (from 0)",
                "remote: Finding sources of Some(3)",
            ]
        );
    }
}
