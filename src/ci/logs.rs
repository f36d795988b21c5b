//! Hides secrets in what a step prints.
//!
//! A secret is hidden as it is, a line of it as well (keys are printed line by
//! line), and in base64, whatever stands before it and however it is wrapped.
//! What stays true:
//!
//! - it makes no difference where the text is cut into chunks: what may yet
//!   turn out to be a secret is held back until more comes, or [`Mask::finish`];
//! - memory does not grow with the text.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use tokio::sync::Mutex;

use super::LogSink;

/// What stands in a log in place of a secret.
pub const HIDDEN: &[u8] = b"***";

/// Shorter lines of a secret are not hidden by themselves.
const LINE: usize = 8;

/// Shorter pieces of base64 are too likely to be something else.
const PIECE: usize = 6;

/// Secrets to be found. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    patterns: Vec<Pattern>,
    /// The patterns that begin with each byte.
    by_first: Vec<Vec<usize>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Pattern {
    bytes: Vec<u8>,
    /// Line breaks within it are passed over.
    wrapped: bool,
}

/// What a pattern makes of a text's beginning.
enum Fit {
    /// It is there, so many bytes long.
    Yes(usize),
    No,
    /// The text ends before one can tell.
    Perhaps,
}

impl Pattern {
    fn fits(&self, text: &[u8]) -> Fit {
        let mut at = 0;
        for wanted in &self.bytes {
            while self.wrapped && at > 0 && matches!(text.get(at), Some(b'\r' | b'\n')) {
                at += 1;
            }
            match text.get(at) {
                None => return Fit::Perhaps,
                Some(found) if found == wanted => at += 1,
                Some(_) => return Fit::No,
            }
            // Nobody wraps after every character.
            if at > 3 * self.bytes.len() {
                return Fit::No;
            }
        }
        Fit::Yes(at)
    }
}

impl Secrets {
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut patterns = Vec::new();
        let mut add = |bytes: &[u8], wrapped| {
            let pattern = Pattern {
                bytes: bytes.to_vec(),
                wrapped,
            };
            if !bytes.is_empty() && !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        };
        for value in values {
            // A file's last newline is seldom a part of the secret in it.
            let value = value.trim_ascii_end();
            add(value, false);
            let lines = value.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
            for line in lines.filter(|line| line.len() >= LINE) {
                add(line, false);
            }
            for piece in encoded(value).filter(|piece| piece.len() >= PIECE) {
                add(piece.as_bytes(), true);
            }
        }
        let mut by_first = vec![Vec::new(); 256];
        for (number, pattern) in patterns.iter().enumerate() {
            by_first[usize::from(pattern.bytes[0])].push(number);
        }
        Self(Arc::new(Table { patterns, by_first }))
    }

    pub fn is_empty(&self) -> bool {
        self.0.patterns.is_empty()
    }

    /// Tells whether a text holds one of them.
    pub fn are_in(&self, text: &[u8]) -> bool {
        (0..text.len()).any(|at| matches!(self.at(&text[at..]), Fit::Yes(_)))
    }

    /// Returns the longest that is at the beginning of a text.
    fn at(&self, text: &[u8]) -> Fit {
        let mut best = Fit::No;
        let Some(first) = text.first() else {
            return best;
        };
        for number in &self.0.by_first[usize::from(*first)] {
            best = match (self.0.patterns[*number].fits(text), best) {
                (Fit::Perhaps, _) | (_, Fit::Perhaps) => Fit::Perhaps,
                (Fit::Yes(one), Fit::Yes(other)) => Fit::Yes(one.max(other)),
                (Fit::Yes(one), Fit::No) | (Fit::No, Fit::Yes(one)) => Fit::Yes(one),
                (Fit::No, Fit::No) => Fit::No,
            };
        }
        best
    }
}

/// Returns a value in both alphabets of base64, as it looks after 0, 1 and 2
/// bytes of something else: only the characters that say nothing else, with
/// something behind it, and at the end of all.
fn encoded(value: &[u8]) -> impl Iterator<Item = String> {
    (0..3_usize).flat_map(move |before| {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(value);
        let (from, to) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        [STANDARD.encode(&bytes), URL_SAFE.encode(&bytes)]
            .into_iter()
            .flat_map(move |text| {
                let piece = |to| text.get(from..to).unwrap_or_default().to_owned();
                [piece(to), piece(text.len())]
            })
    })
}

/// Hides secrets in a stream.
pub struct Mask {
    secrets: Secrets,
    /// What was not passed on yet.
    held: Vec<u8>,
    /// So many bytes of it belong to a secret that is hidden already.
    hidden: usize,
    /// Secrets hidden so far.
    count: u64,
}

impl Mask {
    pub fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            held: Vec::new(),
            hidden: 0,
            count: 0,
        }
    }

    /// Returns what may be shown now that these bytes came.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.secrets.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        self.pass(false)
    }

    /// Returns the rest: nothing more will come.
    pub fn finish(&mut self) -> Vec<u8> {
        self.pass(true)
    }

    /// Tells whether a secret ended in these bytes, the `last` or not.
    pub fn found(&mut self, bytes: &[u8], last: bool) -> bool {
        let before = self.count;
        self.held.extend_from_slice(bytes);
        self.pass(last);
        self.count > before
    }

    fn pass(&mut self, all: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let fit = match self.secrets.at(&self.held[at..]) {
                Fit::Perhaps if !all => break,
                // The text ends here: only what is whole counts.
                Fit::Perhaps => self.whole(at),
                fit => fit,
            };
            if let Fit::Yes(length) = fit {
                if self.hidden <= at {
                    out.extend_from_slice(HIDDEN);
                }
                self.count += 1;
                self.hidden = self.hidden.max(at + length);
            }
            if self.hidden <= at {
                out.push(self.held[at]);
            }
            at += 1;
        }
        self.held.drain(..at);
        self.hidden = self.hidden.saturating_sub(at);
        out
    }

    /// As [`Secrets::at`], for the end of a text.
    fn whole(&self, at: usize) -> Fit {
        let text = &self.held[at..];
        let fits = self.secrets.0.patterns.iter().map(|one| one.fits(text));
        let longest = fits.filter_map(|fit| match fit {
            Fit::Yes(length) => Some(length),
            _ => None,
        });
        longest.max().map_or(Fit::No, Fit::Yes)
    }
}

/// A log that hides secrets before they get to another one.
pub struct Masked {
    log: Arc<dyn LogSink>,
    secrets: Secrets,
    mask: Mutex<Mask>,
}

impl Masked {
    pub fn new(log: Arc<dyn LogSink>, secrets: Secrets) -> Self {
        Self {
            log,
            mask: Mutex::new(Mask::new(secrets.clone())),
            secrets,
        }
    }

    /// Returns a line of text with secrets hidden.
    pub fn hide(&self, text: &str) -> String {
        let mut mask = Mask::new(self.secrets.clone());
        let mut shown = mask.feed(text.as_bytes());
        shown.extend(mask.finish());
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Writes what was held back: a command has ended.
    pub async fn flush(&self) {
        let rest = self.mask.lock().await.finish();
        if !rest.is_empty() {
            self.log.write(&rest).await;
        }
    }
}

#[async_trait]
impl LogSink for Masked {
    async fn write(&self, bytes: &[u8]) {
        let shown = self.mask.lock().await.feed(bytes);
        if !shown.is_empty() {
            self.log.write(&shown).await;
        }
    }

    fn waits(&self, reason: Option<&str>) {
        self.log.waits(reason);
    }

    async fn line(&self, text: &str) {
        self.flush().await;
        self.log.line(&self.hide(text)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Masks a text cut into chunks of `size` bytes.
    fn masked(secrets: &[&str], text: &[u8], size: usize) -> String {
        let secrets = Secrets::new(secrets.iter().map(|secret| secret.as_bytes()));
        let mut mask = Mask::new(secrets);
        let mut out = Vec::new();
        for chunk in text.chunks(size) {
            out.extend(mask.feed(chunk));
        }
        out.extend(mask.finish());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_secret_is_hidden_wherever_the_chunks_end() {
        let text = b"key=hunter22, hunter2, hunhunter22hunter22!";
        for size in 1..=text.len() {
            let shown = masked(&["hunter22\n"], text, size);
            assert_eq!(shown, "key=***, hunter2, hun******!", "{size}");
        }
    }

    #[test]
    fn secrets_that_overlap_are_all_hidden() {
        for size in 1..8 {
            assert_eq!(masked(&["abcd", "cdef"], b"-abcdef-", size), "-***-");
            assert_eq!(
                masked(&["abcd", "abcdef"], b"-abcdef-abcde", size),
                "-***-***e"
            );
        }
    }

    #[test]
    fn base64_is_hidden_whatever_stands_around_it() {
        let secret = "s3cr3t-\u{fe}\u{ff}-of-the-house";
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "\n", "xyz"] {
                let text = format!("{before}{secret}{after}");
                for text in [
                    base64::engine::general_purpose::STANDARD.encode(&text),
                    base64::engine::general_purpose::URL_SAFE.encode(&text),
                ] {
                    for size in [1, 3, 1000] {
                        let shown = masked(&[secret], text.as_bytes(), size);
                        assert!(shown.contains("***"), "{before}{after}: {shown}");
                        assert!(shown.len() < 3 + 10 + 8, "{before}{after}: {shown}");
                    }
                }
            }
        }
    }

    #[test]
    fn base64_is_hidden_when_it_is_wrapped() {
        let secret = "x".repeat(50) + &"yz".repeat(60);
        let encoded = base64::engine::general_purpose::STANDARD.encode(&secret);
        let lines: Vec<&str> = encoded
            .as_bytes()
            .chunks(76)
            .map(|line| std::str::from_utf8(line).expect("ASCII"))
            .collect();
        for newline in ["\n", "\r\n"] {
            let text = lines.join(newline);
            for size in [1, 7, 76, 1000] {
                let shown = masked(&[&secret], text.as_bytes(), size);
                assert!(shown.starts_with("***") && shown.len() < 8, "{shown}");
            }
        }
    }

    #[test]
    fn each_line_of_a_key_is_hidden() {
        let key = "-----BEGIN KEY-----\nMIIabcdefgh\nab\n-----END KEY-----\n";
        assert_eq!(masked(&[key], b"> MIIabcdefgh <\nab\n", 4), "> *** <\nab\n");
        assert_eq!(masked(&[key], key.as_bytes(), 5), "***\n");
    }

    #[test]
    fn without_secrets_nothing_is_held_back() {
        let mut mask = Mask::new(Secrets::default());
        assert_eq!(mask.feed(b"abc"), b"abc");
        let mut mask = Mask::new(Secrets::new([&b"secret"[..]]));
        assert_eq!(mask.feed(b"plain sec"), b"plain ");
        assert_eq!(mask.finish(), b"sec");
        assert!(Secrets::new([&b"secret"[..]]).are_in(b"a secret!"));
        assert!(
            !Secrets::new([&b"\n"[..]]).are_in(b"a\n"),
            "nothing is no secret"
        );
    }
}
