//! Parses requests as they come.

use std::time::Duration;

use bytes::{Buf as _, Bytes};

use crate::model::failure::Failure;
use crate::model::request::{Empty, FileKind, Side};
use crate::model::text::command::read_expect;
use crate::model::text::{quote, read_signature, take_quoted, unquote};
use crate::model::{Entry, Kind, Mode, ObjectId, TransactionId, TreePath};

use super::{Filled, Finish, HEAD, Head, LINE, Operation, Part, Plain};

/// Takes a request in pieces.
#[derive(Debug)]
pub struct Parser {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    state: State,
    /// What stands before the edits, until the first of them.
    head: Option<Box<Head>>,
    /// Bytes of headers taken.
    headers: usize,
}

#[derive(Debug)]
enum State {
    /// A header, an edit or the end.
    Line,
    /// Bytes of a message, so many of them missing.
    Message(usize),
    /// How much content follows.
    Size(Option<Filled>),
    /// The size of a further piece.
    Piece,
    /// Content; then another piece, or the end of it.
    Data {
        left: u64,
        pieces: bool,
    },
    /// The newline behind content, or behind a message.
    Newline(After),
    Finished,
    Failed,
}

#[derive(Clone, Copy, Debug)]
enum After {
    Message,
    Content,
    Piece,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            line: Vec::new(),
            state: State::Line,
            head: Some(Box::default()),
            headers: 0,
        }
    }
}

fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(Kind::Invalid, message)
}

impl Parser {
    /// Tells whether the last line has come.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }

    /// Takes some of the text and adds what is whole to `parts`. After a
    /// failure, [`Kind::Invalid`], nothing more is taken.
    pub fn push(&mut self, mut data: Bytes, parts: &mut Vec<Part>) -> Result<(), Failure> {
        while !data.is_empty() {
            if let Err(failure) = self.step(&mut data, parts) {
                self.state = State::Failed;
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Takes one thing off the front of what came; always some of it.
    fn step(&mut self, data: &mut Bytes, parts: &mut Vec<Part>) -> Result<(), Failure> {
        match &mut self.state {
            State::Finished => Err(wrong("the request is complete: nothing may follow")),
            State::Failed => Err(wrong("the request has failed")),
            State::Message(left) => {
                let piece = data.split_to(data.len().min(*left));
                *left -= piece.len();
                let ended = *left == 0;
                let message = self
                    .head
                    .as_mut()
                    .and_then(|head| head.options.message.as_mut());
                message
                    .expect("made when its size was read")
                    .extend_from_slice(&piece);
                if ended {
                    self.state = State::Newline(After::Message);
                }
                Ok(())
            }
            State::Data { left, pieces } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let piece = data.split_to(data.len().min(most));
                *left -= piece.len() as u64;
                parts.push(Part::Data(piece));
                if *left == 0 {
                    let after = if *pieces {
                        After::Piece
                    } else {
                        After::Content
                    };
                    self.state = State::Newline(after);
                }
                Ok(())
            }
            State::Newline(after) => {
                if data.get_u8() != b'\n' {
                    return Err(wrong("a newline must stand behind content"));
                }
                self.state = match after {
                    After::Message => State::Line,
                    After::Piece => State::Piece,
                    After::Content => {
                        parts.push(Part::End);
                        State::Line
                    }
                };
                Ok(())
            }
            State::Line | State::Size(_) | State::Piece => {
                let end = data.iter().position(|b| *b == b'\n');
                let piece = data.split_to(end.unwrap_or(data.len()));
                if self.line.len() + piece.len() > LINE {
                    return Err(wrong(format!("a line is longer than {LINE} bytes")));
                }
                self.line.extend_from_slice(&piece);
                if end.is_some() {
                    data.advance(1);
                    let line = std::mem::take(&mut self.line);
                    self.line(&line, parts)?;
                }
                Ok(())
            }
        }
    }

    fn line(&mut self, line: &[u8], parts: &mut Vec<Part>) -> Result<(), Failure> {
        match &mut self.state {
            State::Size(edit) => {
                let edit = edit.take().expect("set with the state");
                let pieces = line.first() == Some(&b'+');
                let left = size(if pieces { &line[1..] } else { line })?;
                let size = (!pieces).then_some(left);
                parts.push(Part::Begin { edit, size });
                self.content(left, pieces, parts);
                Ok(())
            }
            State::Piece => {
                let left = line
                    .strip_prefix(b"+")
                    .ok_or_else(|| wrong(format!("{} is not the size of a piece", quote(line))))?;
                self.content(size(left)?, true, parts);
                Ok(())
            }
            _ => self.words(line, parts),
        }
    }

    /// Goes on to so much content.
    fn content(&mut self, left: u64, pieces: bool, parts: &mut Vec<Part>) {
        self.state = match (left, pieces) {
            (0, false) => State::Newline(After::Content),
            (0, true) => {
                parts.push(Part::End);
                State::Line
            }
            _ => State::Data { left, pieces },
        };
    }

    /// Takes a header, an edit or the last line.
    fn words(&mut self, line: &[u8], parts: &mut Vec<Part>) -> Result<(), Failure> {
        let odd = || wrong(format!("{} is not a line of a request", quote(line)));
        let (word, rest) = split(line);
        let finish = match word {
            b"done" => Some(Finish::Done),
            b"commit" => Some(Finish::Commit),
            _ => None,
        };
        if let Some(finish) = finish {
            if !rest.is_empty() {
                return Err(odd());
            }
            parts.extend(self.head.take().map(Part::Head));
            parts.push(Part::Finish(finish));
            self.state = State::Finished;
            return Ok(());
        }
        if let Some(edit) = filled(word, rest)? {
            parts.extend(self.head.take().map(Part::Head));
            self.state = State::Size(Some(edit));
            return Ok(());
        }
        if let Some(edit) = plain(word, rest)? {
            parts.extend(self.head.take().map(Part::Head));
            parts.push(Part::Edit(edit));
            return Ok(());
        }
        self.headers += line.len() + 1;
        let Some(head) = self.head.as_mut() else {
            return Err(odd());
        };
        if word == b"message" {
            let size = usize::try_from(size(rest)?).unwrap_or(usize::MAX);
            self.headers = self.headers.saturating_add(size);
            // Grows as it comes.
            head.options.message = Some(Vec::new());
            self.state = match size {
                0 => State::Newline(After::Message),
                size => State::Message(size),
            };
        } else {
            header(head, word, rest)?.ok_or_else(odd)?;
        }
        if self.headers > HEAD {
            return Err(wrong(format!("the headers are larger than {HEAD} bytes")));
        }
        Ok(())
    }
}

/// Splits a line at its first blank.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|b| *b == b' ') {
        Some(blank) => (&line[..blank], &line[blank + 1..]),
        None => (line, b""),
    }
}

fn size(text: &[u8]) -> Result<u64, Failure> {
    let digits = std::str::from_utf8(text).ok();
    let digits = digits.filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| wrong(format!("{} is not a size", quote(text))))
}

fn id(text: &[u8]) -> Result<ObjectId, Failure> {
    ObjectId::from_hex(text).ok_or_else(|| wrong(format!("{} is not a full id", quote(text))))
}

fn side(text: &[u8]) -> Option<Side> {
    match text {
        b"base" => Some(Side::Base),
        b"ours" => Some(Side::Ours),
        b"theirs" => Some(Side::Theirs),
        _ => None,
    }
}

/// Reads `NAME [again SECONDS]`.
fn operation(text: &[u8]) -> Option<Operation> {
    /// No name is longer.
    const LONGEST: usize = 64;
    let (name, rest) = split(text);
    let legal = |name: &&str| {
        (1..=LONGEST).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let again = match rest {
        b"" => None,
        rest => Some(Duration::from_secs(
            size(rest.strip_prefix(b"again ")?).ok()?,
        )),
    };
    Some(Operation {
        name: std::str::from_utf8(name).ok().filter(legal)?.into(),
        again,
    })
}

/// Reads a path that is to be written.
fn new_path(bytes: &[u8]) -> Result<TreePath, Failure> {
    TreePath::new(bytes).map_err(|refused| wrong(refused.to_string()))
}

/// Reads a path of something that is there.
fn old_path(bytes: &[u8]) -> Result<TreePath, Failure> {
    match TreePath::found(bytes) {
        Some(path) => Ok(path),
        None => new_path(bytes),
    }
}

fn unquoted(text: &[u8]) -> Result<Vec<u8>, Failure> {
    let bytes = unquote(text);
    bytes.ok_or_else(|| wrong(format!("{} is quoted badly", text.escape_ascii())))
}

/// Reads two paths, the first of something that is there.
fn two(text: &[u8]) -> Result<(TreePath, TreePath), Failure> {
    let pair = || {
        let (from, rest) = take_quoted(text)?;
        let (to, rest) = take_quoted(rest.strip_prefix(b" ")?)?;
        rest.is_empty().then_some((from, to))
    };
    let (from, to) =
        pair().ok_or_else(|| wrong(format!("{} is not two quoted paths", text.escape_ascii())))?;
    Ok((old_path(&from)?, new_path(&to)?))
}

fn filled(word: &[u8], rest: &[u8]) -> Result<Option<Filled>, Failure> {
    Ok(Some(match word {
        b"write" => {
            let (kind, rest) = split(rest);
            let kind = match kind {
                b"keep" => FileKind::Keep,
                b"normal" => FileKind::Normal,
                b"exec" => FileKind::Exec,
                _ => return Err(wrong(format!("{} is no kind of file", quote(kind)))),
            };
            let path = new_path(&unquoted(rest)?)?;
            Filled::Write { path, kind }
        }
        b"append" => Filled::Append {
            path: new_path(&unquoted(rest)?)?,
        },
        b"link" => Filled::Link {
            path: new_path(&unquoted(rest)?)?,
        },
        _ => return Ok(None),
    }))
}

fn plain(word: &[u8], rest: &[u8]) -> Result<Option<Plain>, Failure> {
    Ok(Some(match word {
        b"truncate" => {
            let (number, rest) = split(rest);
            Plain::Truncate {
                path: old_path(&unquoted(rest)?)?,
                size: size(number)?,
            }
        }
        b"mkdir" => Plain::Mkdir {
            path: new_path(&unquoted(rest)?)?,
        },
        b"rm" => Plain::Remove {
            path: old_path(&unquoted(rest)?)?,
        },
        b"mv" => {
            let (from, to) = two(rest)?;
            Plain::Rename { from, to }
        }
        b"cp" => {
            let (from, to) = two(rest)?;
            Plain::Copy { from, to }
        }
        b"chmod" => {
            let (how, rest) = split(rest);
            let exec = match how {
                b"+x" => true,
                b"-x" => false,
                _ => return Err(wrong(format!("{} is neither +x nor -x", quote(how)))),
            };
            let path = old_path(&unquoted(rest)?)?;
            Plain::Chmod { path, exec }
        }
        b"set" => {
            let (mode, rest) = split(rest);
            let (hex, rest) = split(rest);
            let octal = std::str::from_utf8(mode).ok();
            let octal = octal.and_then(|mode| u32::from_str_radix(mode, 8).ok());
            let entry = Entry {
                mode: Mode(octal.ok_or_else(|| wrong(format!("{} is no mode", quote(mode))))?),
                id: id(hex)?,
            };
            let path = new_path(&unquoted(rest)?)?;
            Plain::Set { path, entry }
        }
        _ => return Ok(None),
    }))
}

/// Takes a header that is one line; nothing where it is not known.
fn header(head: &mut Head, word: &[u8], rest: &[u8]) -> Result<Option<()>, Failure> {
    let options = &mut head.options;
    match (word, rest) {
        (b"author", _) => options.author = Some(read_signature(rest)),
        (b"expect", _) => {
            let expect = std::str::from_utf8(rest).ok().and_then(read_expect);
            let refuse = || wrong(format!("{} is neither a full id nor 0", quote(rest)));
            options.expect = expect.ok_or_else(refuse)?;
        }
        (b"ff-only", b"") => options.ff_only = true,
        (b"force", b"") => options.force = true,
        (b"keep", b"") => options.keep = true,
        (b"empty", b"skip") => options.empty = Empty::Skip,
        (b"empty", b"refuse") => options.empty = Empty::Refuse,
        (b"dry-run", b"") => head.dry_run = true,
        (b"parents", _) => {
            let ids = rest.split(|b| *b == b' ').filter(|word| !word.is_empty());
            head.parents = Some(ids.map(id).collect::<Result<_, _>>()?);
        }
        (b"theirs", _) => head.theirs = Some(id(rest)?),
        (b"from", _) => head.from = Some(id(rest)?),
        (b"name", _) => {
            let name = std::str::from_utf8(rest).ok().and_then(TransactionId::new);
            let refuse = || wrong(format!("{} is no name of a transaction", quote(rest)));
            head.name = Some(name.ok_or_else(refuse)?);
        }
        (b"operation", _) => {
            let read = operation(rest);
            let refuse = || wrong(format!("{} is no operation", quote(rest)));
            head.operation = Some(read.ok_or_else(refuse)?);
        }
        (b"favour", _) => match side(rest) {
            Some(side) => head.favour = Some(side),
            None => return Ok(None),
        },
        (b"resolve", _) => match side(rest) {
            Some(side) => head.resolve = Some((side, Vec::new())),
            None => return Ok(None),
        },
        (b"path", _) => match &mut head.resolve {
            Some((_, paths)) => paths.push(old_path(&unquoted(rest)?)?),
            None => return Err(wrong("\"path\" stands behind \"resolve\" only")),
        },
        _ => return Ok(None),
    }
    Ok(Some(()))
}
