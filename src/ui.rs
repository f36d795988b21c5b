//! The only file that writes to the terminal.
//!
//! stdout carries records and nothing else; notices, progress, prompts and
//! errors go to stderr. A terminal changes looks, never content, and control
//! characters from a store never reach it raw. stdout has no hidden buffer:
//! [`Ui::show`] writes a record at once, [`Records`] keeps its own buffer.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::{self, IsTerminal as _, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_core::Stream;

use crate::model::request::Progress;
use crate::model::{TreePath, text};

mod board;
mod paint;
mod progress;
mod reader;
pub mod signals;
mod stdout;

pub use board::Board;
pub use paint::{Look, Paint, Painted};
pub use reader::Reader;
pub use stdout::{Content, Stdout};

/// How this run speaks to its user. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ui {
    /// `--json`: a record is one line of JSON.
    pub json: bool,
    /// `--quiet`: no notices, no progress.
    pub quiet: bool,
    /// Looks of stdout.
    pub paint: Paint,
    /// stdout is a terminal: what it shows must be made fit for it.
    terminal: bool,
    /// Looks of stderr.
    paint_errors: Paint,
    /// Whoever read stdout went away.
    closed: Arc<AtomicBool>,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

/// The command was used wrongly: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Usage {
    pub message: String,
    pub hint: Option<String>,
}

impl Usage {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what the user could do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Ends the run with a status of its own, and prints `cause` if there is one.
#[derive(Debug, thiserror::Error)]
#[error("exit status {status}")]
pub struct Exit {
    pub status: u8,
    pub cause: Option<anyhow::Error>,
}

impl Exit {
    /// Ends with `status` and prints nothing.
    pub fn quiet(status: u8) -> Self {
        Self {
            status,
            cause: None,
        }
    }

    /// Ends with `status` and prints `cause` as any other error.
    pub fn with(status: u8, cause: impl Into<anyhow::Error>) -> Self {
        Self {
            status,
            cause: Some(cause.into()),
        }
    }
}

impl Ui {
    pub fn new(json: bool, quiet: bool, color: Color) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            json,
            quiet,
            paint: Paint::choose(color, terminal),
            terminal,
            paint_errors: Paint::choose(color, io::stderr().is_terminal()),
            closed: Arc::default(),
        }
    }

    // Data, on stdout.

    /// Prints one record at once: as one line of JSON under `--json`,
    /// otherwise with `render`.
    pub fn show<T: serde::Serialize + ?Sized>(
        &self,
        record: &T,
        render: impl FnOnce(&T, &mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut records = self.records();
        records.show(record, render)?;
        records.finish()
    }

    /// Begins to print many records, through a buffer.
    pub fn records(&self) -> Records {
        Records {
            ui: self.clone(),
            buffer: Vec::new(),
        }
    }

    /// Returns stdout for bytes that are no records (a file, a tar stream).
    /// Unbuffered: write large pieces.
    pub fn stdout(&self) -> Stdout {
        Stdout {
            closed: Arc::clone(&self.closed),
        }
    }

    /// Returns stdout for the content of files: byte for byte, but with control
    /// characters made visible on a terminal.
    pub fn content(&self) -> Content {
        Content {
            out: self.stdout(),
            terminal: self.terminal,
            held: Vec::new(),
        }
    }

    /// Returns how many columns of stdout may be filled.
    pub fn width(&self) -> usize {
        let size = self
            .terminal
            .then(|| rustix::termios::tcgetwinsize(rustix::stdio::stdout()));
        match size {
            Some(Ok(size)) if size.ws_col > 0 => usize::from(size.ws_col),
            _ => 80,
        }
    }

    /// Tells whether stdout is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Returns text from a store as stdout may show it: byte for byte, but
    /// with control characters made visible on a terminal.
    pub fn text<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.terminal {
            Cow::Owned(text::printable(bytes).into_bytes())
        } else {
            Cow::Borrowed(bytes)
        }
    }

    /// Tells whether the reader of stdout went away: the run then ends quietly.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Returns how many bytes stdout takes without waiting for its reader.
    pub fn room(&self) -> u64 {
        reader::room()
    }

    /// Returns what notices, while nothing is printed, that the reader of
    /// stdout went away.
    pub fn reader(&self) -> io::Result<Reader> {
        Reader::new()
    }

    /// Puts what was printed on its disk, where stdout is a file.
    pub fn sync(&self) -> io::Result<()> {
        reader::sync()
    }

    // Talk, on stderr. A closed stderr is no reason to fail.

    /// Prints a notice, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    /// Prints a warning.
    pub fn warn(&self, text: &str) {
        self.line(&format!("dk: warning: {text}"));
    }

    /// Prints an error: what failed, each cause that says more, and the hint.
    pub fn error(&self, error: &anyhow::Error, hint: Option<&str>) {
        let mut said = error.to_string();
        self.labelled(Look::Bad, "dk:", &said);
        for cause in error.chain().skip(1) {
            let text = cause.to_string();
            if !text.is_empty() && !said.contains(&text) {
                self.labelled(Look::Faint, "caused by:", &text);
                said = text;
            }
        }
        if let Some(hint) = hint {
            self.labelled(Look::Faint, "hint:", hint);
        }
    }

    fn labelled(&self, look: Look, label: &str, text: &str) {
        let label = self.paint_errors.of(look, label);
        let text = text::printable(text.as_bytes());
        let _ = writeln!(io::stderr().lock(), "{label} {text}");
    }

    /// Prints a line, whatever `--quiet` says.
    pub fn line(&self, line: &str) {
        let line = text::printable(line.as_bytes());
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// Returns what shows the progress of long work: a bar where stderr is a
    /// terminal, and the lines the work has to say; nothing with `--quiet`.
    pub fn progress(&self) -> Arc<dyn Progress> {
        if self.quiet {
            return Arc::new(());
        }
        Arc::new(progress::Shown::new(io::stderr().is_terminal()))
    }

    /// Returns what shows how several things go on at once; nothing with `--quiet`.
    pub fn board(&self) -> Board {
        Board::new(self.quiet, io::stderr().is_terminal())
    }

    // Questions. None may be the only way: `flag` is the way without a terminal.

    /// Asks for a line that the caller will read.
    pub fn prompt(&self, prompt: &str) {
        let prompt = text::printable(prompt.as_bytes());
        let _ = write!(io::stderr().lock(), "{prompt}");
    }

    /// Tells whether prompts may be shown: stdin and stderr are terminals.
    pub fn interactive(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks yes or no; Enter alone is no.
    pub fn confirm(&self, question: &str, flag: &str) -> anyhow::Result<bool> {
        self.need_terminal(question, flag)?;
        let _talk = signals::talk()?;
        let answer = dialoguer::Confirm::new()
            .with_prompt(text::printable(question.as_bytes()))
            .default(false)
            .interact()?;
        Ok(answer)
    }

    /// Lets the user choose one of `items`; returns its number.
    pub fn select(&self, question: &str, items: &[String], flag: &str) -> anyhow::Result<usize> {
        self.need_terminal(question, flag)?;
        let _talk = signals::talk()?;
        let items: Vec<String> = items
            .iter()
            .map(|item| text::printable(item.as_bytes()))
            .collect();
        let chosen = dialoguer::Select::new()
            .with_prompt(text::printable(question.as_bytes()))
            .items(&items)
            .default(0)
            .interact()?;
        Ok(chosen)
    }

    /// Asks for a password, twice, and shows nothing of it.
    pub fn password(&self, question: &str, flag: &str) -> anyhow::Result<String> {
        self.need_terminal(question, flag)?;
        let _talk = signals::talk()?;
        let password = dialoguer::Password::new()
            .with_prompt(text::printable(question.as_bytes()))
            .with_confirmation("The same again", "these are not the same")
            .interact()?;
        Ok(password)
    }

    fn need_terminal(&self, question: &str, flag: &str) -> Result<(), Usage> {
        if self.interactive() {
            return Ok(());
        }
        let message = format!("cannot ask without a terminal: {question}");
        Err(Usage::new(message).hint(format!("use {flag}")))
    }
}

/// Records on their way to stdout. What is left in the buffer is written when
/// it is dropped, so an error never swallows the records before it.
pub struct Records {
    ui: Ui,
    buffer: Vec<u8>,
}

/// Write out when so many bytes are waiting.
const FULL: usize = 64 * 1024;

impl Records {
    /// Prints one record, as [`Ui::show`] does.
    pub fn show<T: serde::Serialize + ?Sized>(
        &mut self,
        record: &T,
        render: impl FnOnce(&T, &mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        if self.ui.json {
            serde_json::to_writer(&mut self.buffer, record).map_err(io::Error::from)?;
            self.buffer.push(b'\n');
        } else {
            render(record, &mut self.buffer)?;
        }
        self.drain()
    }

    /// Prints what is no record of its own (a heading, a part of a drawing):
    /// never call it under `--json`.
    pub fn text(
        &mut self,
        render: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        debug_assert!(!self.ui.json, "under --json everything is a record");
        render(&mut self.buffer)?;
        self.drain()
    }

    /// Prints a path (under `--json` as `{"path": …}`): quoted and ended with
    /// a newline, or raw and ended with NUL.
    pub fn path(&mut self, path: &TreePath, nul: bool) -> anyhow::Result<()> {
        #[derive(serde::Serialize)]
        struct Record<'a> {
            path: &'a TreePath,
        }
        self.show(&Record { path }, |_, out| write_path(out, path, nul))
    }

    /// Waits for the next of a stream. Before it has to wait, everything
    /// printed so far is written out, so live output never lags.
    pub async fn next<S: Stream + Unpin>(
        &mut self,
        stream: &mut S,
    ) -> anyhow::Result<Option<S::Item>> {
        let ready = poll_fn(|context| match Pin::new(&mut *stream).poll_next(context) {
            Poll::Ready(item) => Poll::Ready(Some(item)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(item) = ready.await {
            return Ok(item);
        }
        self.flush()?;
        Ok(poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await)
    }

    /// Writes out what is waiting.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.buffer);
        if !waiting.is_empty() {
            self.ui.stdout().write_all(&waiting)?;
        }
        self.buffer = waiting;
        self.buffer.clear();
        Ok(())
    }

    /// Writes out the rest.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.flush()
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        if self.buffer.len() >= FULL {
            self.flush()?;
        }
        Ok(())
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// Writes a path as one record: quoted with a newline, or raw with a NUL.
pub fn write_path(out: &mut dyn Write, path: &TreePath, nul: bool) -> io::Result<()> {
    let bytes = path.as_bytes();
    let plain = |b: &u8| (b' '..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    if nul || bytes.iter().all(plain) {
        out.write_all(bytes)?;
        out.write_all(if nul { b"\0" } else { b"\n" })
    } else {
        writeln!(out, "{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_quoted_or_raw() {
        let path = TreePath::new("a\"b\n\u{e4}").expect("legal");
        let written = |nul| {
            let mut out = Vec::new();
            write_path(&mut out, &path, nul).expect("memory");
            String::from_utf8(out).expect("UTF-8")
        };
        assert_eq!(written(false), "\"a\\\"b\\n\u{e4}\"\n");
        assert_eq!(written(true), "a\"b\n\u{e4}\0");
    }
}
