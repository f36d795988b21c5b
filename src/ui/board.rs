//! Several things that go on at once, on stderr: a line with a spinner for
//! each where that is a terminal, and otherwise a line when one begins.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::model::text;

/// See the head of the file. What is left is cleared when it is dropped.
pub struct Board {
    /// Nothing is to be told at all.
    quiet: bool,
    /// Where it is drawn; nothing where there is no terminal.
    drawn: Option<MultiProgress>,
    going: BTreeMap<String, Option<ProgressBar>>,
}

impl Board {
    pub(super) fn new(quiet: bool, terminal: bool) -> Self {
        Self {
            quiet,
            drawn: (terminal && !quiet).then(MultiProgress::new),
            going: BTreeMap::new(),
        }
    }

    /// Says that something goes on, and how it goes.
    pub fn goes(&mut self, name: &str, how: &str) {
        let shown = text::printable(format!("{name}: {how}").as_bytes());
        if let Some(bar) = self.going.get(name) {
            if let Some(bar) = bar {
                bar.set_message(shown);
            }
            return;
        }
        let bar = self.drawn.as_ref().map(|drawn| {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
            let bar = drawn.add(ProgressBar::new_spinner());
            bar.set_style(style.expect("the template above is well formed"));
            bar.set_message(shown.clone());
            bar.enable_steady_tick(Duration::from_millis(150));
            bar
        });
        if bar.is_none() && !self.quiet {
            // A closed stderr is no reason to fail.
            let _ = writeln!(std::io::stderr().lock(), "{shown}");
        }
        self.going.insert(name.to_owned(), bar);
    }

    /// Says that something goes on no longer.
    pub fn ends(&mut self, name: &str) {
        if let Some(Some(bar)) = self.going.remove(name) {
            bar.finish_and_clear();
        }
    }

    /// Prints something meanwhile.
    pub fn print<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.drawn {
            Some(drawn) => drawn.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        for bar in self.going.values().flatten() {
            bar.finish_and_clear();
        }
    }
}
