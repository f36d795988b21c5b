//! Passing on what gix tells of its progress.
//!
//! gix wants a progress that lives as long as it likes, and counts in shared
//! counters. So work runs on a thread of its own, with a [`Teller`]; the thread
//! that waits for it reads the counters now and then and tells the caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use gix::progress::{
    Count, Id, MessageLevel, NestedProgress, Progress as GixProgress, Step, StepShared, UNKNOWN,
    Unit,
};

use crate::model::request::Progress;

/// How often counters are read.
const PERIOD: Duration = Duration::from_millis(100);

/// Runs `work` on a thread of its own and tells `progress` how far it has come.
pub(super) fn relay<T: Send>(progress: &dyn Progress, work: impl FnOnce(Teller) -> T + Send) -> T {
    let (events, inbox) = mpsc::channel();
    thread::scope(|scope| {
        let worker = scope.spawn(move || work(Teller::new(events, String::new(), UNKNOWN)));
        listen(progress, &inbox, || worker.is_finished());
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Tells `progress` what comes in, until nobody can or will send any more.
fn listen(progress: &dyn Progress, inbox: &mpsc::Receiver<Event>, ended: impl Fn() -> bool) {
    let mut part: Option<(StepShared, usize)> = None;
    loop {
        let event = inbox.recv_timeout(PERIOD);
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
}

/// The child that carries what the server says.
const REMOTE: Id = *b"FERP";

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
        }
    }

    /// What the part is called, if it is one to be shown: gix has many more,
    /// several at a time.
    fn shown_name(&self) -> Option<&str> {
        match self.name.as_str() {
            "indexing" => Some("receiving objects"),
            "Resolving" => Some("resolving deltas"),
            name if self.id == REMOTE => Some(name),
            _ => None,
        }
    }

    /// Passes on what the server said, if that was a line of text.
    fn flush(&mut self) {
        if let Some(said) = self.said.take()
            && said != "remote"
            && !said.is_empty()
        {
            let _ = self.events.send(Event::Line(said));
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
        let begins = match self.said.take() {
            // The server repeats the name with every number.
            Some(said) => said != self.name || max != self.total,
            None => self.id != REMOTE,
        };
        self.unit = unit;
        self.total = max;
        if !begins {
            return;
        }
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
