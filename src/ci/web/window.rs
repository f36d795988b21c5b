//! Parts of long logs: some lines from anywhere, at once.
//!
//! A log of a commit never changes, so what was found out about it stays true:
//! the lines of a long one are counted once, and it lies decompressed in a
//! file without a name while somebody looks at it. There are bounds for how
//! many such files there are and how large they are together; the one not used
//! for longest gives way.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};

use super::ansi::{Html, Mark, Plain, Screen, Style, Terminal};
use crate::ci::view::{self, Log};
use crate::client::{Client, Error, Result};
use crate::model::ObjectId;

/// Lines of a window.
pub const LINES: u64 = 2000;
/// Bytes of a window, beyond which it has fewer lines.
const BYTES: usize = 1 << 20;
/// A log up to this size is shown whole, whatever its lines are.
pub const SHORT: u64 = 256 << 10;
/// Bytes between two marks.
const STRIDE: u64 = 64 << 10;
/// Files, and bytes in them, that are kept.
const KEPT: (usize, u64) = (32, 2 << 30);
/// Logs that are read to their end at the same time.
const AT_ONCE: usize = 2;
/// Lines a search gives.
pub const FOUND: usize = 500;

/// Some lines of a log.
#[derive(Debug, Default)]
pub struct Window {
    /// The number of the first line, from 1.
    pub first: u64,
    /// As HTML.
    pub lines: Vec<String>,
    /// There are lines after these.
    pub more: bool,
}

/// Lines that hold what was searched for.
#[derive(Debug, Default)]
pub struct Found {
    /// With their numbers; plain text.
    pub lines: Vec<(u64, String)>,
    /// There are more of them.
    pub more: bool,
}

/// The logs that were looked at.
pub struct Windows {
    client: Arc<dyn Client>,
    kept: Mutex<VecDeque<Kept>>,
    /// For what reads a log to its end.
    turns: Semaphore,
}

struct Kept {
    parts: Vec<ObjectId>,
    size: u64,
    cell: Arc<OnceCell<Arc<Counted>>>,
}

impl Windows {
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self {
            client,
            kept: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Returns the beginning of a log; reads no more than that.
    pub async fn head(&self, log: &Log) -> Result<Window> {
        let mut reader = view::open(&*self.client, log).await?;
        let all = log.size() <= SHORT;
        view::blocking(move || {
            let (mut terminal, mut html) = (Terminal::default(), Html::default());
            let mut window = Window {
                first: 1,
                ..Window::default()
            };
            fill(&mut window, &mut terminal, &mut html, &mut reader, all)?;
            Ok(window)
        })
        .await
    }

    /// Returns the window that begins with a line, from 1.
    pub async fn from(&self, log: &Log, line: u64) -> Result<Window> {
        if line <= 1 {
            return self.head(log).await;
        }
        let counted = self.counted(log).await?;
        view::blocking(move || counted.window(line)).await
    }

    /// Returns how many lines a log has.
    pub async fn lines(&self, log: &Log) -> Result<u64> {
        Ok(self.counted(log).await?.lines)
    }

    /// Returns the lines that hold a text, whatever the case of ASCII letters.
    pub async fn search(&self, log: &Log, text: &str) -> Result<Found> {
        let counted = self.counted(log).await?;
        let text = text.to_ascii_lowercase();
        let _turn = self.turns.acquire().await;
        view::blocking(move || counted.search(text.as_bytes())).await
    }

    /// Counts the lines of a log, once, however many ask.
    async fn counted(&self, log: &Log) -> Result<Arc<Counted>> {
        let parts: Vec<ObjectId> = log.parts.iter().map(|(id, _)| *id).collect();
        let cell = self.cell(parts, log.size());
        let count = || async {
            let _turn = self.turns.acquire().await;
            let reader = view::open(&*self.client, log).await?;
            let counted = view::blocking(move || Counted::new(reader)).await?;
            Ok::<_, Error>(Arc::new(counted))
        };
        cell.get_or_try_init(count).await.map(Arc::clone)
    }

    fn cell(&self, parts: Vec<ObjectId>, size: u64) -> Arc<OnceCell<Arc<Counted>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|kept| kept.parts == parts);
        let entry = known
            .and_then(|at| kept.remove(at))
            .unwrap_or_else(|| Kept {
                parts,
                size,
                cell: Arc::default(),
            });
        let cell = Arc::clone(&entry.cell);
        kept.push_back(entry);
        let bytes = |kept: &VecDeque<Kept>| kept.iter().map(|kept| kept.size).sum::<u64>();
        while kept.len() > 1 && (kept.len() > KEPT.0 || bytes(&kept) > KEPT.1) {
            kept.pop_front();
        }
        cell
    }
}

/// Reads on until a window is full, or nothing is left. `all`: however many
/// lines that are.
fn fill(
    window: &mut Window,
    terminal: &mut Terminal,
    html: &mut Html,
    reader: &mut dyn Read,
    all: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        let read = match reader.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            terminal.finish(html);
        } else {
            terminal.feed(&buffer[..read], html);
        }
        let mut lines = html.take();
        if read == 0 && terminal.in_line() {
            lines.push(html.begun());
        }
        for line in lines {
            let full = window.lines.len() as u64 >= LINES || bytes >= BYTES;
            if full && !all {
                window.more = true;
                return Ok(());
            }
            bytes += line.len();
            window.lines.push(line);
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// A log whose lines were counted.
struct Counted {
    file: Mutex<File>,
    lines: u64,
    /// Lines (from 0) with the byte they begin at and the style there.
    marks: Vec<(u64, u64, Style)>,
}

/// Counts lines, and notes where they are.
struct Counter {
    /// The byte that the present call began with.
    base: u64,
    lines: u64,
    marks: Vec<(u64, u64, Style)>,
}

impl Screen for Counter {
    fn text(&mut self, _: Style, _: &[u8]) {}
    fn too_long(&mut self, _: Style) {}
    fn rewind(&mut self) {}

    fn line(&mut self, at: usize, next: Mark) {
        self.lines += 1;
        let at = self.base + at as u64;
        let last = self.marks.last().map_or(0, |(_, at, _)| *at);
        if let Some(style) = next
            && at - last >= STRIDE
        {
            self.marks.push((self.lines, at, style));
        }
    }
}

impl Counted {
    fn new(mut reader: Box<dyn Read + Send>) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        let mut terminal = Terminal::default();
        let mut counter = Counter {
            base: 0,
            lines: 0,
            marks: vec![(0, 0, Style::default())],
        };
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = match reader.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read])?;
            terminal.feed(&buffer[..read], &mut counter);
            counter.base += read as u64;
        }
        terminal.finish(&mut counter);
        Ok(Self {
            file: Mutex::new(file),
            lines: counter.lines + u64::from(terminal.in_line()),
            marks: counter.marks,
        })
    }

    /// Returns a reader from a mark at or before a line (from 0), and how many
    /// lines lie between.
    fn seek(&self, line: u64) -> (Reader<'_>, Style, u64) {
        let at = self.marks.partition_point(|(number, ..)| *number <= line);
        let (number, at, style) = self.marks[at.saturating_sub(1)];
        (Reader { log: self, at }, style, line - number)
    }

    fn window(&self, line: u64) -> io::Result<Window> {
        let line = line.clamp(1, self.lines.max(1));
        let (mut reader, style, skip) = self.seek(line - 1);
        let mut terminal = Terminal::at(style);
        let mut window = Window {
            first: line,
            ..Window::default()
        };
        let mut html = Html::default();
        if skip > 0 {
            // Up to the line: its beginning is found by reading byte by byte
            // where a piece holds it.
            let mut skipping = Skip { left: skip, at: 0 };
            let mut buffer = vec![0; 16 << 10];
            while skipping.left > 0 {
                let begun = reader.at;
                let read = reader.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                let before = terminal.clone();
                let left = skipping.left;
                terminal.feed(&buffer[..read], &mut skipping);
                if skipping.left == 0 {
                    // Again, but only so far.
                    terminal = before;
                    let mut again = Skip { left, at: 0 };
                    terminal.feed(&buffer[..skipping.at], &mut again);
                    reader.at = begun + skipping.at as u64;
                }
            }
        }
        fill(&mut window, &mut terminal, &mut html, &mut reader, false)?;
        Ok(window)
    }

    fn search(&self, text: &[u8]) -> io::Result<Found> {
        let mut found = Found::default();
        let (mut reader, style, _) = self.seek(0);
        let (mut terminal, mut plain) = (Terminal::at(style), Plain::default());
        let mut buffer = vec![0; 256 << 10];
        let mut number = 0;
        loop {
            let read = reader.read(&mut buffer)?;
            if read == 0 {
                terminal.finish(&mut plain);
                if terminal.in_line() {
                    plain.line(0, None);
                }
            } else {
                terminal.feed(&buffer[..read], &mut plain);
            }
            for line in plain.lines.drain(..) {
                number += 1;
                if !holds(&line, text) {
                    continue;
                }
                if found.lines.len() >= FOUND {
                    found.more = true;
                    return Ok(found);
                }
                let shown = String::from_utf8_lossy(&line[..line.len().min(1000)]);
                found.lines.push((number, shown.into_owned()));
            }
            if read == 0 {
                return Ok(found);
            }
        }
    }
}

/// Tells whether a line holds a text of small letters.
fn holds(line: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else {
        return true;
    };
    let mut rest = line;
    while let Some(at) = rest.iter().position(|b| b.to_ascii_lowercase() == *first) {
        let tail = &rest[at..];
        if tail.len() >= text.len() && tail[..text.len()].eq_ignore_ascii_case(text) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Passes over lines, and notes where the last of them ends.
struct Skip {
    left: u64,
    at: usize,
}

impl Screen for Skip {
    fn text(&mut self, _: Style, _: &[u8]) {}
    fn too_long(&mut self, _: Style) {}
    fn rewind(&mut self) {}

    fn line(&mut self, at: usize, _: Mark) {
        if self.left > 0 {
            self.left -= 1;
            self.at = at;
        }
    }
}

/// Reads the file from somewhere; many may do so in turn.
struct Reader<'a> {
    log: &'a Counted,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.log.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.at))?;
        let read = file.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &[u8]) -> Counted {
        Counted::new(Box::new(io::Cursor::new(text.to_vec()))).expect("memory")
    }

    #[test]
    fn a_window_is_the_same_from_wherever_it_is_reached() {
        let mut text = String::new();
        for number in 1..=20_000 {
            // Styles that go on over lines, long lines, and no newline at the end.
            let colour = 31 + number % 7;
            text += &format!("\x1b[{colour}mline {number}\u{e9}\r\x1b[1Kline {number} again");
            text += if number < 20_000 { "\n" } else { "" };
        }
        let log = counted(text.as_bytes());
        assert_eq!(log.lines, 20_000);
        assert!(log.marks.len() > 5);
        for line in [1, 2, 1999, 2000, 2001, 12_345, 19_999, 20_000] {
            let window = log.window(line).expect("memory");
            assert_eq!(window.first, line);
            let colour =
                ["red", "green", "yellow", "blue", "magenta", "cyan", "white"][line as usize % 7];
            assert_eq!(
                window.lines[0],
                format!("<span class='fg-{colour}'>line {line} again</span>")
            );
            assert_eq!(window.lines.len() as u64, LINES.min(20_001 - line));
            assert_eq!(window.more, line + LINES <= 20_000);
        }
        assert_eq!(log.window(99_999).expect("memory").first, 20_000);
    }

    #[test]
    fn lines_are_found() {
        let log = counted(b"one\n\x1b[31mTw\x1b[1mo\x1b[m two\nthree");
        let found = log.search(b"two").expect("memory");
        assert_eq!(found.lines, [(2, "Two two".to_owned())]);
        assert_eq!(log.search(b"e").expect("memory").lines.len(), 2);
        assert!(log.search(b"four").expect("memory").lines.is_empty());
        assert_eq!(counted(b"").lines, 0);
        assert_eq!(counted(b"x\n").lines, 1);
    }
}
