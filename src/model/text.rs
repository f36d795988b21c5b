//! Every text format dk speaks in files and on stdout, printed and parsed side
//! by side.
//!
//! Names are quoted as Git does with `core.quotePath=false`: left alone unless
//! they hold a control character, `"`, `\` or bytes that are not UTF-8.

pub mod amount;
pub mod apply;
mod command;
mod commit;
mod event;
mod failure;
mod listing;
mod meta;
mod query;
mod task;

use std::fmt::{self, Write as _};
use std::io::Write as _;

use base64::Engine as _;
use serde::Serialize;
use serde::ser::SerializeMap as _;

use super::{
    Change, ChangeKind, Conflict, ConflictKind, Entry, ObjectId, Signature, Time, TreePath,
};

pub use command::{
    CollectTransactions, Identification, Rename, Reset, percent_decode, percent_encode,
};
pub use commit::{read_commit, take_commit_record, write_commit, write_commit_record};
pub use event::{take_event, write_event};
pub use failure::{read_failure, write_failure};
pub use listing::{
    Refs, read_refs, take_change, take_item, write_change, write_item, write_ref, write_stat,
};
pub use meta::{
    Meta, read_merged, read_meta, take_transaction, write_merged, write_meta, write_transaction,
};
pub use query::{
    DiffQuery, LogElement, LsQuery, LsShape, ResolveQuery, SinceQuery, read_rev, write_rev,
};
pub use task::{
    TaskLine, read_task_arguments, read_task_line, write_task_arguments, write_task_line,
};

/// A name as Git prints it. The value's `Display` honours width.
pub fn quote(bytes: &[u8]) -> Quoted<'_> {
    Quoted(bytes)
}

/// See [`quote`].
pub struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| !c.is_control() && c != '"' && c != '\\';
        if let Ok(text) = std::str::from_utf8(self.0)
            && text.chars().all(plain)
        {
            return f.pad(text);
        }
        let mut out = String::from("\"");
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\t' => out.push_str("\\t"),
                    '\r' => out.push_str("\\r"),
                    c if c.is_control() => {
                        let mut buffer = [0; 4];
                        octal(&mut out, c.encode_utf8(&mut buffer).as_bytes());
                    }
                    c => out.push(c),
                }
            }
            octal(&mut out, chunk.invalid());
        }
        out.push('"');
        f.pad(&out)
    }
}

fn octal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\{byte:03o}");
    }
}

/// Undoes [`quote`]. `None` where the text is not what `quote` gives.
pub fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let Some(inner) = text.strip_prefix(b"\"") else {
        return Some(text.to_vec());
    };
    let inner = inner.strip_suffix(b"\"")?;
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match rest.next()? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            digit @ b'0'..=b'3' => {
                let mut value = digit - b'0';
                for _ in 0..2 {
                    value = value << 3 | rest.next()?.checked_sub(b'0').filter(|d| *d < 8)?;
                }
                value
            }
            other @ (b'"' | b'\\') => other,
            _ => return None,
        });
    }
    Some(out)
}

/// A name as one word for `xargs`: blanks, quotes, backslashes and newlines
/// get a backslash before them, which xargs takes away again.
pub fn xargs_word(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_whitespace() || matches!(byte, b'\'' | b'"' | b'\\' | 0x0b) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

/// Returns an error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

/// Returns bytes as hexadecimal digits, two each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text from a commit made fit for a terminal: control characters but newline
/// and tab are shown as `^X` or as escapes, bytes that are not UTF-8 as `\ooo`.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' | '\t' => out.push(c),
                '\0'..='\x1f' => {
                    out.push('^');
                    out.push(char::from(c as u8 + 64));
                }
                c if c.is_control() => out.extend(c.escape_unicode()),
                c => out.push(c),
            }
        }
        octal(&mut out, chunk.invalid());
    }
    out
}

/// Bytes in JSON: a string where they are UTF-8, else `{"base64": "…"}`.
pub struct JsonBytes<'a>(pub &'a [u8]);

impl Serialize for JsonBytes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &base64(self.0))?;
        map.end()
    }
}

impl Serialize for TreePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        JsonBytes(self.as_bytes()).serialize(serializer)
    }
}

impl Serialize for super::BranchName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        JsonBytes(self.as_bytes()).serialize(serializer)
    }
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Undoes the encoding of [`JsonBytes`] (RFC 4648 section 4, padded).
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

impl fmt::Display for Change {
    /// `+ path`, `- path` or `* path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind() {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Updated => '*',
        };
        write!(f, "{sign} {}", self.path)
    }
}

impl Serialize for Change {
    /// `{"path", "change", "old": {"kind","mode","id"}|null, "new": …}`
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("path", &self.path)?;
        map.serialize_entry("change", &self.kind())?;
        map.serialize_entry("old", &self.old)?;
        map.serialize_entry("new", &self.new)?;
        map.end()
    }
}

impl Serialize for Entry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("kind", &self.mode.kind())?;
        map.serialize_entry("mode", &format!("{:06o}", self.mode.0))?;
        map.serialize_entry("id", &self.id)?;
        map.end()
    }
}

impl Serialize for Signature {
    /// `{"name", "email", "time": seconds, "offset": minutes}`
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("name", &JsonBytes(&self.name))?;
        map.serialize_entry("email", &JsonBytes(&self.email))?;
        map.serialize_entry("time", &self.time.seconds)?;
        map.serialize_entry("offset", &self.time.offset)?;
        map.end()
    }
}

impl Serialize for super::Commit {
    /// `{"id", "tree", "parents", "author", "committer", "message"}`
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("tree", &self.tree)?;
        map.serialize_entry("parents", &self.parents)?;
        map.serialize_entry("author", &self.author)?;
        map.serialize_entry("committer", &self.committer)?;
        map.serialize_entry("message", &JsonBytes(&self.message))?;
        map.end()
    }
}

impl Serialize for Conflict {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("path", &self.path)?;
        map.serialize_entry("kind", &self.kind)?;
        map.serialize_entry("base", &self.base)?;
        map.serialize_entry("ours", &self.ours)?;
        map.serialize_entry("theirs", &self.theirs)?;
        map.end()
    }
}

impl fmt::Display for Time {
    /// As Git's ISO form: `2026-11-22 15:04:05 +0100`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = jiff::tz::Offset::from_seconds(self.offset.saturating_mul(60))
            .unwrap_or(jiff::tz::Offset::UTC);
        match jiff::Timestamp::from_second(self.seconds) {
            Ok(stamp) => {
                let local = offset.to_datetime(stamp);
                let (sign, minutes) = sign_and_minutes(self.offset);
                let (date, time) = (local.date(), local.time());
                write!(
                    f,
                    "{date} {:02}:{:02}:{:02} {sign}{:02}{:02}",
                    time.hour(),
                    time.minute(),
                    time.second(),
                    minutes / 60,
                    minutes % 60
                )
            }
            Err(_) => write!(f, "@{}", self.seconds),
        }
    }
}

fn sign_and_minutes(offset: i32) -> (char, u32) {
    (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs())
}

/// Appends `Name <mail> seconds +hhmm`, as in a commit object. Characters that
/// would break the line (`<`, `>`, newline, NUL) are left out.
pub fn write_signature(out: &mut Vec<u8>, who: &Signature) {
    let clean = |bytes: &[u8]| -> Vec<u8> {
        let mut kept = bytes.to_vec();
        kept.retain(|b| !matches!(b, b'<' | b'>' | b'\n' | 0));
        kept.trim_ascii().to_vec()
    };
    let who = Signature {
        name: clean(&who.name),
        email: clean(&who.email),
        time: who.time,
    };
    signature(out, &who);
}

/// As [`write_signature`], for a signature that was read: nothing is left out.
fn signature(out: &mut Vec<u8>, who: &Signature) {
    out.extend_from_slice(&who.name);
    out.extend_from_slice(b" <");
    out.extend_from_slice(&who.email);
    let (sign, minutes) = sign_and_minutes(who.time.offset);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    // Memory takes all there is.
    let _ = write!(out, "> {} {sign}{hours:02}{minutes:02}", who.time.seconds);
}

/// Reads what [`write_signature`] gives, and what other programs wrote badly:
/// whatever is missing is empty or zero.
pub fn read_signature(line: &[u8]) -> Signature {
    let close = line.iter().rposition(|b| *b == b'>');
    let open = line.iter().position(|b| *b == b'<');
    let (name, email, rest) = match (open, close) {
        (Some(open), Some(close)) if open < close => {
            (&line[..open], &line[open + 1..close], &line[close + 1..])
        }
        _ => (line, &b""[..], &b""[..]),
    };
    let mut words = std::str::from_utf8(rest)
        .unwrap_or_default()
        .split_ascii_whitespace();
    let seconds = words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
    let zone: i32 = words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
    Signature {
        name: name.trim_ascii().to_vec(),
        email: email.trim_ascii().to_vec(),
        time: Time {
            seconds,
            offset: zone / 100 * 60 + zone % 100,
        },
    }
}

/// Text that is not what it should be; says what that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not {0}")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for super::failure::Failure {
    fn from(malformed: Malformed) -> Self {
        Self::new(super::Kind::Invalid, malformed.to_string())
    }
}

/// A record taken off the front of a text that may go on; `None`: the rest of
/// it has not come yet.
pub type Taken<T> = Result<Option<T>, Malformed>;

/// No header of a record is longer.
const HEADER: usize = 256;

/// Takes a line of blank-separated words, the last of which says how many bytes
/// follow, then those and a newline.
fn take_sized<'a>(text: &mut &'a [u8], what: &'static str) -> Taken<(Vec<&'a str>, &'a [u8])> {
    let Some(end) = text.iter().take(HEADER).position(|b| *b == b'\n') else {
        return if text.len() < HEADER {
            Ok(None)
        } else {
            Err(Malformed(what))
        };
    };
    let header = std::str::from_utf8(&text[..end]).map_err(|_| Malformed(what))?;
    let mut words: Vec<&str> = header.split(' ').collect();
    let size: Option<usize> = words.pop().and_then(|word| word.parse().ok());
    let size = size.ok_or(Malformed(what))?;
    let rest = &text[end + 1..];
    match rest.get(size) {
        None => Ok(None),
        Some(b'\n') => {
            *text = &rest[size + 1..];
            Ok(Some((words, &rest[..size])))
        }
        Some(_) => Err(Malformed(what)),
    }
}

/// As [`take_sized`], for the object named first in the line.
fn take_object<'a>(text: &mut &'a [u8], word: &'static str) -> Taken<(ObjectId, &'a [u8])> {
    let Some((words, body)) = take_sized(text, word)? else {
        return Ok(None);
    };
    match words[..] {
        [id, found] if found == word => {
            let id = ObjectId::from_hex(id.as_bytes()).ok_or(Malformed(word))?;
            Ok(Some((id, body)))
        }
        _ => Err(Malformed(word)),
    }
}

/// A name quoted as [`quote`] does, even where it need not be, so that
/// something may stand behind it.
pub fn quote_always(bytes: &[u8]) -> String {
    let text = quote(bytes).to_string();
    if text.starts_with('"') {
        return text;
    }
    format!("\"{text}\"")
}

/// Splits what [`quote_always`] gives off the front.
fn take_quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut end = 1;
    loop {
        match text.get(end)? {
            b'"' => break,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    Some((unquote(&text[..=end])?, &text[end + 1..]))
}

/// The content of a file that could not be merged, as the ancestor's clients
/// know it.
pub fn conflict_file(kind: ConflictKind) -> Vec<u8> {
    format!("** Conflict **\n{}\n", kind.text()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_round_trips() {
        for (raw, shown) in [
            (&b"plain name"[..], "plain name"),
            ("ü".as_bytes(), "ü"),
            (b"a\"b\\c\nd\x1b", "\"a\\\"b\\\\c\\nd\\033\""),
            (b"\xff\xfe", "\"\\377\\376\""),
        ] {
            assert_eq!(quote(raw).to_string(), shown);
            assert_eq!(unquote(shown.as_bytes()).as_deref(), Some(raw));
        }
        assert_eq!(unquote(b"\"open"), None);
        assert_eq!(unquote(b"\"\\9\""), None);
    }

    #[test]
    fn xargs_words() {
        assert_eq!(xargs_word(b"a b'c\"d\\e\nf"), b"a\\ b\\'c\\\"d\\\\e\\\nf");
    }

    #[test]
    fn base64_round_trips() {
        for (raw, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"\xff\xfe\xfd\xfc", "//79/A=="),
        ] {
            assert_eq!(base64(raw), text);
            assert_eq!(unbase64(text).as_deref(), Some(raw));
        }
        for bad in ["Z", "Zg=", "Z===", "Zg==Zg==", "Z!=="] {
            assert_eq!(unbase64(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_gits_iso() {
        let time = Time {
            seconds: 1_700_000_000,
            offset: 90,
        };
        assert_eq!(time.to_string(), "2023-11-14 23:43:20 +0130");
        let west = Time {
            seconds: 0,
            offset: -330,
        };
        assert_eq!(west.to_string(), "1969-12-31 18:30:00 -0530");
        let beyond = Time {
            seconds: i64::MAX,
            offset: 0,
        };
        assert_eq!(beyond.to_string(), format!("@{}", i64::MAX));
    }

    #[test]
    fn what_would_break_a_signature_is_left_out() {
        let offset = -95;
        for (name, email, shown) in [
            ("A B", "a@b", "A B <a@b> 7 -0135"),
            ("  A ", " a ", "A <a> 7 -0135"),
            (" < A>\n > ", "<a@b>\0", "A <a@b> 7 -0135"),
            ("", "\n", " <> 7 -0135"),
        ] {
            let who = Signature {
                name: name.into(),
                email: email.into(),
                time: Time { seconds: 7, offset },
            };
            let mut out = Vec::new();
            write_signature(&mut out, &who);
            assert_eq!(String::from_utf8(out).unwrap(), shown);
        }
    }

    #[test]
    fn signatures_round_trip() {
        let who = Signature {
            name: b"A <B>\nC".to_vec(),
            email: b"a@b".to_vec(),
            time: Time {
                seconds: 5,
                offset: -330,
            },
        };
        let mut line = Vec::new();
        write_signature(&mut line, &who);
        assert_eq!(line, b"A BC <a@b> 5 -0530");
        assert_eq!(read_signature(&line).time, who.time);
        assert_eq!(read_signature(b"garbage").name, b"garbage");
    }
}
