//! What a durable transaction says of itself, the record made of it, and what a
//! merge came to, which tells conflicts in the same words.

use crate::model::request::Merged;
use crate::model::{
    BranchName, Conflict, ConflictKind, Entry, Merge, Mode, ObjectId, Signature, State, Time,
    Transaction, TransactionId, TreePath,
};

use super::{Malformed, Taken, read_signature, take_sized, unquote, write_signature};

/// What a durable transaction says of itself besides its tree, in the style of
/// a commit object: one `key value` a line, a blank line, then the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub branch: BranchName,
    pub base: Option<ObjectId>,
    pub parents: Vec<ObjectId>,
    pub author: Signature,
    pub edited: Time,
    pub edits: u64,
    pub state: State,
    pub merge: Option<Merge>,
    pub conflicts: Vec<Conflict>,
    pub message: Vec<u8>,
}

/// Prints what a transaction says of itself. The first line is the version of the format.
pub fn write_meta(meta: &Meta) -> Vec<u8> {
    let mut out = b"transaction 1\nbranch ".to_vec();
    out.extend_from_slice(meta.branch.as_bytes());
    out.push(b'\n');
    let mut line = |text: String| {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    };
    line(format!("base {}", id_or_0(&meta.base)));
    for parent in &meta.parents {
        line(format!("parent {parent}"));
    }
    line(format!(
        "edited {} {}",
        meta.edited.seconds, meta.edited.offset
    ));
    line(format!("edits {}", meta.edits));
    line(match &meta.state {
        State::Open => "state open".into(),
        State::Committing { new, expected } => {
            format!("state committing {new} {}", id_or_0(expected))
        }
        State::Committed(head) => format!("state committed {head}"),
    });
    if let Some(merge) = &meta.merge {
        line(format!(
            "merge {} {} {}",
            id_or_0(&merge.base),
            merge.ours,
            merge.theirs
        ));
    }
    for conflict in &meta.conflicts {
        line(conflict_line(conflict));
    }
    out.extend_from_slice(b"author ");
    write_signature(&mut out, &meta.author);
    out.extend_from_slice(b"\n\n");
    out.extend_from_slice(&meta.message);
    out
}

/// Parses what [`write_meta`] gives; `None` where it is not one, or of a later version.
pub fn read_meta(text: &[u8]) -> Option<Meta> {
    let split = text.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, message) = (&text[..split], &text[split + 2..]);
    let mut lines = head.split(|b| *b == b'\n');
    if lines.next()? != b"transaction 1" {
        return None;
    }
    let (mut branch, mut base, mut author) = (None, None, None);
    let (mut parents, mut conflicts, mut merge) = (Vec::new(), Vec::new(), None);
    let (mut edited, mut edits, mut state) = (
        Time {
            seconds: 0,
            offset: 0,
        },
        0,
        State::Open,
    );
    for line in lines {
        let blank = line.iter().position(|b| *b == b' ')?;
        let (key, value) = (&line[..blank], &line[blank + 1..]);
        if key == b"branch" {
            branch = Some(BranchName::new(value).ok()?);
            continue;
        }
        if key == b"author" {
            author = Some(read_signature(value));
            continue;
        }
        let value = std::str::from_utf8(value).ok()?;
        let words: Vec<&str> = value.splitn(5, ' ').collect();
        match (key, words.as_slice()) {
            (b"base", [word]) => base = read_id_or_0(word)?,
            (b"parent", [word]) => parents.push(read_id_or_0(word)??),
            (b"edited", [seconds, offset]) => {
                edited = Time {
                    seconds: seconds.parse().ok()?,
                    offset: offset.parse().ok()?,
                }
            }
            (b"edits", [count]) => edits = count.parse().ok()?,
            (b"state", ["open"]) => state = State::Open,
            (b"state", ["committing", new, expected]) => {
                state = State::Committing {
                    new: read_id_or_0(new)??,
                    expected: read_id_or_0(expected)?,
                }
            }
            (b"state", ["committed", head]) => state = State::Committed(read_id_or_0(head)??),
            (b"merge", [base, ours, theirs]) => {
                merge = Some(Merge {
                    base: read_id_or_0(base)?,
                    ours: read_id_or_0(ours)??,
                    theirs: read_id_or_0(theirs)??,
                })
            }
            (b"conflict", words) => conflicts.push(read_conflict(words)?),
            _ => return None,
        }
    }
    Some(Meta {
        branch: branch?,
        base,
        parents,
        author: author?,
        edited,
        edits,
        state,
        merge,
        conflicts,
        message: message.to_vec(),
    })
}

fn id_or_0(id: &Option<ObjectId>) -> String {
    id.map_or_else(|| "0".to_string(), |id| id.to_string())
}

fn read_id_or_0(word: &str) -> Option<Option<ObjectId>> {
    match word {
        "0" => Some(None),
        hex => ObjectId::from_hex(hex.as_bytes()).map(Some),
    }
}

/// `conflict KIND BASE OURS THEIRS PATH`, each side `MODE:ID` or `0:0`.
fn conflict_line(conflict: &Conflict) -> String {
    let number = ConflictKind::ALL
        .iter()
        .position(|kind| *kind == conflict.kind);
    let side = |entry: &Option<Entry>| {
        entry.map_or_else(|| "0:0".to_string(), |e| format!("{:o}:{}", e.mode.0, e.id))
    };
    format!(
        "conflict {} {} {} {} {}",
        number.unwrap_or_default(),
        side(&conflict.base),
        side(&conflict.ours),
        side(&conflict.theirs),
        conflict.path
    )
}

fn read_conflict(words: &[&str]) -> Option<Conflict> {
    let &[kind, base, ours, theirs, path] = words else {
        return None;
    };
    let side = |word: &str| {
        let (mode, hex) = word.split_once(':')?;
        let mode = Mode(u32::from_str_radix(mode, 8).ok()?);
        Some(read_id_or_0(hex)?.map(|id| Entry { mode, id }))
    };
    Some(Conflict {
        path: TreePath::found(&unquote(path.as_bytes())?)?,
        kind: *ConflictKind::ALL.get(kind.parse::<usize>().ok()?)?,
        base: side(base)?,
        ours: side(ours)?,
        theirs: side(theirs)?,
    })
}

/// Appends a transaction as a record: `ID transaction SIZE`, a line `tree ID`
/// and what [`write_meta`] gives, and a newline.
pub fn write_transaction(out: &mut Vec<u8>, transaction: &Transaction) {
    let author = Signature {
        time: transaction.begun,
        ..transaction.author.clone()
    };
    let mut body = format!("tree {}\n", transaction.tree).into_bytes();
    body.extend_from_slice(&write_meta(&Meta {
        branch: transaction.branch.clone(),
        base: transaction.base,
        parents: transaction.parents.clone(),
        author,
        edited: transaction.edited,
        edits: transaction.edits,
        state: transaction.state.clone(),
        merge: transaction.merge.clone(),
        conflicts: transaction.conflicts.clone(),
        message: transaction.message.clone(),
    }));
    let head = format!("{} transaction {}\n", transaction.id, body.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(&body);
    out.push(b'\n');
}

/// Takes a record of [`write_transaction`] off the front of `text`.
pub fn take_transaction(text: &mut &[u8]) -> Taken<Transaction> {
    let what = "transaction";
    let Some((words, body)) = take_sized(text, what)? else {
        return Ok(None);
    };
    let read = || {
        let &[id, word] = &words[..] else {
            return None;
        };
        if word != what {
            return None;
        }
        let end = body.iter().position(|b| *b == b'\n')?;
        let tree = ObjectId::from_hex(body[..end].strip_prefix(b"tree ")?)?;
        let meta = read_meta(&body[end + 1..])?;
        Some(Transaction {
            id: TransactionId::new(id)?,
            branch: meta.branch,
            base: meta.base,
            parents: meta.parents,
            message: meta.message,
            begun: meta.author.time,
            author: meta.author,
            state: meta.state,
            conflicts: meta.conflicts,
            edited: meta.edited,
            edits: meta.edits,
            tree,
            merge: meta.merge,
        })
    };
    read().map(Some).ok_or(Malformed(what))
}

/// Prints what a merge came to: `head ID` (or 0), `tree ID`, `fast-forward`
/// and `yes` or `no`, and a line for each conflict.
pub fn write_merged(merged: &Merged) -> Vec<u8> {
    let mut out = format!(
        "head {}\ntree {}\nfast-forward {}\n",
        id_or_0(&merged.head),
        merged.tree,
        if merged.fast_forward { "yes" } else { "no" }
    );
    for conflict in &merged.conflicts {
        out.push_str(&conflict_line(conflict));
        out.push('\n');
    }
    out.into_bytes()
}

/// Parses what [`write_merged`] gives.
pub fn read_merged(text: &[u8]) -> Option<Merged> {
    let mut lines = std::str::from_utf8(text)
        .ok()?
        .strip_suffix('\n')?
        .split('\n');
    let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
    let head = read_id_or_0(value("head")?)?;
    let tree = read_id_or_0(value("tree")?)??;
    let fast_forward = match value("fast-forward")? {
        "yes" => true,
        "no" => false,
        _ => return None,
    };
    let conflict = |line: &str| {
        let words: Vec<&str> = line.strip_prefix("conflict ")?.splitn(5, ' ').collect();
        read_conflict(&words)
    };
    Some(Merged {
        head,
        tree,
        conflicts: lines.map(conflict).collect::<Option<_>>()?,
        fast_forward,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_round_trips() {
        let id = |n: u8| ObjectId::from_bytes(&[n; 20]).expect("20 bytes");
        let entry = Entry {
            mode: Mode::EXEC,
            id: id(9),
        };
        let meta = Meta {
            branch: BranchName::new("a/b").expect("legal"),
            base: Some(id(1)),
            parents: vec![id(1), id(2)],
            author: read_signature(b"N <m> 7 +0100"),
            edited: Time {
                seconds: 8,
                offset: 60,
            },
            edits: 3,
            state: State::Committing {
                new: id(3),
                expected: None,
            },
            merge: Some(Merge {
                base: None,
                ours: id(4),
                theirs: id(5),
            }),
            conflicts: vec![Conflict {
                path: TreePath::found(b"a b/\x7f\xff c/.git").expect("legal"),
                kind: ConflictKind::AddDel,
                base: Some(entry),
                ours: None,
                theirs: Some(entry),
            }],
            message: b"hello\n\nworld".to_vec(),
        };
        assert_eq!(read_meta(b"transaction 2\n\n"), None);
        let merged = Merged {
            head: None,
            tree: id(3),
            conflicts: meta.conflicts.clone(),
            fast_forward: false,
        };
        assert_eq!(read_merged(&write_merged(&merged)), Some(merged));
        let transaction = Transaction {
            id: TransactionId::new("t1").expect("legal"),
            tree: id(6),
            begun: meta.author.time,
            branch: meta.branch.clone(),
            base: meta.base,
            parents: meta.parents.clone(),
            message: meta.message.clone(),
            author: meta.author.clone(),
            state: meta.state.clone(),
            conflicts: meta.conflicts.clone(),
            edited: meta.edited,
            edits: meta.edits,
            merge: meta.merge.clone(),
        };
        let mut text = Vec::new();
        write_transaction(&mut text, &transaction);
        for end in 0..text.len() {
            assert_eq!(take_transaction(&mut &text[..end]), Ok(None));
        }
        let mut rest = &text[..];
        assert_eq!(take_transaction(&mut rest), Ok(Some(transaction)));
        assert!(rest.is_empty());
        assert_eq!(read_meta(&write_meta(&meta)), Some(meta));
    }
}
