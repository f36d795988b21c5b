//! stdout, without a buffer of its own.
//!
//! It remembers when its reader is gone, and copes with one that others made
//! non-blocking.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::text;

/// stdout without a buffer. Remembers when its reader is gone.
#[derive(Clone, Debug)]
pub struct Stdout {
    pub(super) closed: Arc<AtomicBool>,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _talk = super::signals::talk()?;
        let stdout = rustix::stdio::stdout();
        loop {
            match rustix::io::write(stdout, bytes) {
                Ok(count) => return Ok(count),
                Err(rustix::io::Errno::INTR) => (),
                // Whoever shares this stdout made it non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    let mut wait = [rustix::event::PollFd::new(
                        &stdout,
                        rustix::event::PollFlags::OUT,
                    )];
                    match rustix::event::poll(&mut wait, None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => (),
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => {
                    if error == rustix::io::Errno::PIPE {
                        self.closed.store(true, Ordering::Relaxed);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// See `Ui::content`.
pub struct Content {
    pub(super) out: Stdout,
    pub(super) terminal: bool,
    /// The beginning of a character whose end is not there yet.
    pub(super) held: Vec<u8>,
}

impl Write for Content {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.terminal {
            return self.out.write(bytes);
        }
        self.held.extend_from_slice(bytes);
        let whole = self.held.len() - unfinished(&self.held);
        let shown = text::printable(&self.held[..whole]);
        self.held.drain(..whole);
        self.out.write_all(shown.as_bytes())?;
        Ok(bytes.len())
    }

    /// Writes out what is held back; to be called at the end.
    fn flush(&mut self) -> io::Result<()> {
        let shown = text::printable(&std::mem::take(&mut self.held));
        self.out.write_all(shown.as_bytes())
    }
}

/// Returns the length of the incomplete character at the end of `bytes`.
fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    match last.map(|chunk| chunk.invalid()) {
        // A chunk's invalid part is at most 3 bytes, and an incomplete
        // character only where the bytes end with it.
        Some(tail) if !tail.is_empty() => match std::str::from_utf8(tail) {
            Err(error) if error.error_len().is_none() => tail.len(),
            _ => 0,
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_cut_in_two_are_held_back() {
        for (bytes, want) in [
            (&b"abc"[..], 0),
            (b"a\xc3", 1),
            (b"a\xe2\x82", 2),
            (b"a\xf0\x9f\x98", 3),
            (b"a\xff", 0),
            (b"\xc3\xa4", 0),
            (b"", 0),
        ] {
            assert_eq!(unfinished(bytes), want, "{bytes:?}");
        }
    }
}
