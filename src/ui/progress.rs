//! Progress on stderr: a bar where that is a terminal, lines in any case.
//!
//! A bar appears only when a part takes a moment, and is gone when it is done.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::model::request::Progress;
use crate::model::text;

/// A part that is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// See the head of the file.
pub struct Shown {
    bars: bool,
    /// Units done of the present part, those not drawn yet included.
    done: AtomicU64,
    part: Mutex<Part>,
}

/// The part under way.
struct Part {
    name: String,
    total: Option<u64>,
    bytes: bool,
    since: Instant,
    bar: Option<ProgressBar>,
}

impl Shown {
    pub fn new(bars: bool) -> Self {
        Self {
            bars,
            done: AtomicU64::new(0),
            part: Mutex::new(Part {
                name: String::new(),
                total: None,
                bytes: false,
                since: Instant::now(),
                bar: None,
            }),
        }
    }
}

impl Part {
    fn draw(&mut self, done: u64) {
        if self.bar.is_none() && self.since.elapsed() >= PATIENCE {
            let bar = match self.total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            bar.set_style(style(self.total.is_some(), self.bytes));
            bar.set_message(self.name.clone());
            bar.enable_steady_tick(Duration::from_millis(150));
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(total: bool, bytes: bool) -> ProgressStyle {
    let template = match (total, bytes) {
        (true, true) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}",
        (true, false) => "{msg} {wide_bar} {human_pos}/{human_len}",
        (false, true) => "{spinner} {msg} {bytes} {bytes_per_sec}",
        (false, false) => "{spinner} {msg} {human_pos}",
    };
    ProgressStyle::with_template(template).expect("the templates above are well formed")
}

impl Progress for Shown {
    fn begin(&self, part: &str, total: Option<u64>, bytes: bool) {
        if !self.bars {
            return;
        }
        let mut now = self
            .part
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        now.clear();
        self.done.store(0, Ordering::Relaxed);
        *now = Part {
            name: text::printable(part.as_bytes()),
            total,
            bytes,
            since: Instant::now(),
            bar: None,
        };
    }

    fn advance(&self, by: u64) {
        if !self.bars {
            return;
        }
        let done = self.done.fetch_add(by, Ordering::Relaxed) + by;
        // Somebody else is drawing: this step will be seen with the next.
        if let Ok(mut part) = self.part.try_lock() {
            part.draw(done);
        }
    }

    fn line(&self, line: &str) {
        let line = text::printable(line.as_bytes());
        let part = self
            .part
            .lock()
            .unwrap_or_else(|broken| broken.into_inner());
        let print = || {
            // A closed stderr is no reason to fail.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        };
        match &part.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.part
            .get_mut()
            .unwrap_or_else(|broken| broken.into_inner())
            .clear();
    }
}
