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

/// A commit that was made, with what it changed. `--json` prints the commit's
/// own keys and these.
#[derive(Debug, serde::Serialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub commit: Box<Commit>,
    /// When it was committed, in seconds since 1970.
    pub time: i64,
    /// The commit that `changes` are the difference to; null: the empty tree.
    pub previous: Option<ObjectId>,
    /// The branch moved to history without `previous`.
    pub reset: bool,
    pub changes: Vec<Change>,
}

impl Record {
    pub fn write(&self, format: Format, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Paths => {
                for change in &self.changes {
                    out.write_all(&xargs_word(change.path.as_bytes()))?;
                    out.write_all(b"\n")?;
                }
                Ok(())
            }
            Format::Nul => write_nul_ended(&self.changes, out),
            Format::Batch => write_batch(&self.changes, BATCH, out),
            Format::Commits if self.reset => writeln!(out, "! {}", self.commit.id),
            Format::Commits => writeln!(out, "{}", self.commit.id),
        }
    }
}

/// Prints raw paths, each ended by NUL, for `xargs -0`.
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

    fn record(paths: &[&[u8]], reset: bool) -> Record {
        let who = Signature {
            name: b"A U Thor".to_vec(),
            email: b"a@example.org".to_vec(),
            time: Time {
                seconds: 1_700_000_000,
                offset: 60,
            },
        };
        Record {
            commit: Box::new(Commit {
                id: id(1),
                tree: id(2),
                parents: vec![id(3)],
                author: who.clone(),
                committer: who,
                message: b"hello\n".to_vec(),
            }),
            time: 1_700_000_000,
            previous: Some(id(3)),
            reset,
            changes: changes(paths),
        }
    }

    fn printed(paths: &[&[u8]], format: Format, reset: bool) -> Vec<u8> {
        let mut out = Vec::new();
        record(paths, reset)
            .write(format, &mut out)
            .expect("a Vec takes all");
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
        let record = record(&[b"a b", b"\xff"], false);
        let json = serde_json::to_string(&record).expect("serializes");
        insta::assert_snapshot!(json, @r#"{"id":"0101010101010101010101010101010101010101","tree":"0202020202020202020202020202020202020202","parents":["0303030303030303030303030303030303030303"],"author":{"name":"A U Thor","email":"a@example.org","time":1700000000,"offset":60},"committer":{"name":"A U Thor","email":"a@example.org","time":1700000000,"offset":60},"message":"hello\n","time":1700000000,"previous":"0303030303030303030303030303030303030303","reset":false,"changes":[{"path":"a b","change":"added","old":null,"new":{"kind":"file","mode":"100644","id":"0707070707070707070707070707070707070707"}},{"path":{"base64":"/w=="},"change":"added","old":null,"new":{"kind":"file","mode":"100644","id":"0707070707070707070707070707070707070707"}}]}"#);
    }
}
