//! What `dk watch` prints for one event.
//!
//! A path in a line is one word of xargs: what xargs undoes is exactly what
//! stands in the tree, whatever name somebody committed.

use std::io::{self, Write};

use crate::model::text::xargs_word;
use crate::model::{Change, Commit, ObjectId};

/// A line of `--batch` is not longer than this, unless one path alone is.
///
/// xargs builds commands of at most 128 kB, environment left aside.
const BATCH: usize = 100_000;

/// How an event is shown where `--json` is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One escaped path a line.
    Paths,
    /// Raw paths, each ended by NUL.
    Nul,
    /// One line of escaped paths.
    Batch,
    /// The commit's id, or `! ID` where the head moved to other history.
    Commits,
}

/// One event, as `--json` prints it: the commit's own keys and these.
#[derive(serde::Serialize)]
pub(super) struct Record<'a> {
    #[serde(flatten)]
    pub commit: &'a Commit,
    /// When it was committed, in seconds since 1970.
    pub time: i64,
    /// The commit that `changes` are the difference to; null: the empty tree.
    pub previous: Option<&'a ObjectId>,
    pub reset: bool,
    pub changes: &'a [Change],
}

impl Record<'_> {
    /// Prints the event and passes everything on to the reader.
    pub fn write(&self, format: Format, out: &mut dyn Write) -> io::Result<()> {
        // Standard output alone would make a system call of every line.
        let mut out = io::BufWriter::with_capacity(1 << 16, out);
        match format {
            Format::Paths => {
                for change in self.changes {
                    out.write_all(&xargs_word(change.path.as_bytes()))?;
                    out.write_all(b"\n")?;
                }
            }
            Format::Nul => write_nul_ended(self.changes, &mut out)?,
            Format::Batch => write_batch(self.changes, BATCH, &mut out)?,
            Format::Commits if self.reset => writeln!(out, "! {}", self.commit.id)?,
            Format::Commits => writeln!(out, "{}", self.commit.id)?,
        }
        out.flush()
    }
}

/// Prints raw paths, each ended by NUL, for `xargs -0` and `--exec`.
fn write_nul_ended(changes: &[Change], out: &mut dyn Write) -> io::Result<()> {
    for change in changes {
        out.write_all(change.path.as_bytes())?;
        out.write_all(b"\0")?;
    }
    Ok(())
}

/// Prints paths as words of lines no longer than `limit` where that can be.
fn write_batch(changes: &[Change], limit: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut length = 0;
    for change in changes {
        let mut word = xargs_word(change.path.as_bytes());
        // A blank before the newline, escaped or not, makes xargs -L take the
        // next line for a part of this one. An empty quotation hides it.
        if word.ends_with(b" ") || word.ends_with(b"\t") {
            word.extend_from_slice(b"\"\"");
        }
        if length > 0 && length + 1 + word.len() > limit {
            out.write_all(b"\n")?;
            length = 0;
        } else if length > 0 {
            out.write_all(b" ")?;
            length += 1;
        }
        out.write_all(&word)?;
        length += word.len();
    }
    if length > 0 {
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::model::{Entry, Mode, Signature, Time, TreePath};

    fn id(digit: u8) -> ObjectId {
        ObjectId::from_bytes(&[digit; 20]).expect("20 bytes")
    }

    fn changes(paths: &[&[u8]]) -> Vec<Change> {
        let change = |path: &&[u8]| Change {
            path: TreePath::new(path).expect("legal"),
            old: None,
            new: Some(Entry {
                mode: Mode::FILE,
                id: id(7),
            }),
        };
        paths.iter().map(change).collect()
    }

    fn commit() -> Commit {
        let who = Signature {
            name: b"A U Thor".to_vec(),
            email: b"a@example.org".to_vec(),
            time: Time {
                seconds: 1_700_000_000,
                offset: 60,
            },
        };
        Commit {
            id: id(1),
            tree: id(2),
            parents: vec![id(3)],
            author: who.clone(),
            committer: who,
            message: b"hello\n".to_vec(),
        }
    }

    fn printed(paths: &[&[u8]], format: Format, reset: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let record = Record {
            commit: &commit(),
            time: 1_700_000_000,
            previous: None,
            reset,
            changes: &changes(paths),
        };
        record.write(format, &mut out).expect("a Vec takes all");
        out
    }

    const HOSTILE: &[&[u8]] = &[
        b" lead",
        b"\"quoted\"",
        b"$(touch x)",
        b"'",
        b"--",
        b"-rf",
        b"\\",
        b"a b",
        b"line\nfeed",
        b"many  blanks\t\x0b\x0c\r",
        b"trail ",
        b"trail\t",
        b"\xff\xfe",
        b"\xc3\xbc/\xe2\x80\xa8",
        b"_",
    ];

    /// Gives `input` to `xargs` and returns what `printf '<%s>\n'` made of it.
    fn xargs(options: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("xargs")
            .args(options)
            // The first word stands in for $0 of the shell.
            .args(["sh", "-c", "printf '<%s>' \"$@\"; echo", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("xargs runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input).expect("xargs reads");
        drop(stdin);
        child.wait_with_output().expect("it ends").stdout
    }

    fn words(paths: &[&[u8]]) -> Vec<u8> {
        let mut all = Vec::new();
        for path in paths {
            all.extend_from_slice(b"<");
            all.extend_from_slice(path);
            all.extend_from_slice(b">");
        }
        all.push(b'\n');
        all
    }

    #[test]
    fn xargs_undoes_what_is_escaped() {
        let paths = printed(HOSTILE, Format::Paths, false);
        assert_eq!(
            String::from_utf8_lossy(&xargs(&[], &paths)),
            String::from_utf8_lossy(&words(HOSTILE))
        );
        assert_eq!(xargs(&[], &paths), words(HOSTILE));
        let raw = printed(HOSTILE, Format::Nul, false);
        assert_eq!(xargs(&["-0"], &raw), words(HOSTILE));
    }

    #[test]
    fn a_batch_is_one_line_for_xargs_even_if_a_path_ends_with_a_blank() {
        for last in HOSTILE {
            let mut batches = printed(&[b"first", last], Format::Batch, false);
            batches.extend(printed(&[b"next commit"], Format::Batch, false));
            let mut expected = words(&[b"first", last]);
            expected.extend(words(&[b"next commit"]));
            assert_eq!(
                String::from_utf8_lossy(&xargs(&["-L1"], &batches)),
                String::from_utf8_lossy(&expected)
            );
        }
    }

    #[test]
    fn a_large_batch_is_split_between_paths() {
        let paths = changes(&[b"aaaa", b"bbbb", b"a path that is too long", b"c", b"d"]);
        let mut out = Vec::new();
        write_batch(&paths, 10, &mut out).expect("a Vec takes all");
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "aaaa bbbb\na\\ path\\ that\\ is\\ too\\ long\nc d\n"
        );
        assert_eq!(printed(&[], Format::Batch, false), b"");
    }

    #[test]
    fn commits_tell_a_reset() {
        let hex = id(1).to_string();
        assert_eq!(
            printed(&[b"a"], Format::Commits, false),
            format!("{hex}\n").as_bytes()
        );
        assert_eq!(
            printed(&[b"a"], Format::Commits, true),
            format!("! {hex}\n").as_bytes()
        );
    }

    #[test]
    fn json_has_stable_keys() {
        let record = Record {
            commit: &commit(),
            time: 1_700_000_000,
            previous: Some(&id(3)),
            reset: false,
            changes: &changes(&[b"a b", b"\xff"]),
        };
        let json = serde_json::to_string(&record).expect("serializes");
        insta::assert_snapshot!(json, @"");
    }
}
