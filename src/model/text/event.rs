//! What a watch tells, as records.

use crate::model::ObjectId;
use crate::model::request::Event;

use super::{
    Malformed, Taken, take_change, take_commit_record, take_sized, write_change,
    write_commit_record,
};

/// Appends an event: `event SIZE`, its body and a newline. The body is
/// `deleted PREVIOUS`, or `commit PREVIOUS|0 [reset]`, the record of the commit
/// and a record for each difference.
pub fn write_event(out: &mut Vec<u8>, event: &Event) {
    let mut body = Vec::new();
    match event {
        Event::Deleted { previous } => {
            body.extend_from_slice(format!("deleted {previous}\n").as_bytes());
        }
        Event::Commit {
            commit,
            previous,
            reset,
            changes,
        } => {
            let previous = previous.map_or_else(|| "0".to_owned(), |id| id.to_string());
            let reset = if *reset { " reset" } else { "" };
            body.extend_from_slice(format!("commit {previous}{reset}\n").as_bytes());
            write_commit_record(&mut body, commit);
            for change in changes {
                write_change(&mut body, change);
            }
        }
    }
    out.extend_from_slice(format!("event {}\n", body.len()).as_bytes());
    out.extend_from_slice(&body);
    out.push(b'\n');
}

/// Takes a record of [`write_event`] off the front of `text`.
pub fn take_event(text: &mut &[u8]) -> Taken<Event> {
    let what = "an event";
    match take_sized(text, what)? {
        None => Ok(None),
        Some((words, body)) if words == ["event"] => read(body).map(Some).ok_or(Malformed(what)),
        Some(_) => Err(Malformed(what)),
    }
}

fn read(body: &[u8]) -> Option<Event> {
    let end = body.iter().position(|b| *b == b'\n')?;
    let words: Vec<&str> = std::str::from_utf8(&body[..end]).ok()?.split(' ').collect();
    let id = |word: &str| ObjectId::from_hex(word.as_bytes());
    let mut rest = &body[end + 1..];
    let (previous, reset) = match words[..] {
        ["deleted", previous] if rest.is_empty() => {
            let previous = id(previous)?;
            return Some(Event::Deleted { previous });
        }
        ["commit", previous] => (previous, false),
        ["commit", previous, "reset"] => (previous, true),
        _ => return None,
    };
    let previous = match previous {
        "0" => None,
        hex => Some(id(hex)?),
    };
    let commit = Box::new(take_commit_record(&mut rest).ok()??);
    let mut changes = Vec::new();
    while !rest.is_empty() {
        changes.push(take_change(&mut rest).ok()??);
    }
    Some(Event::Commit {
        commit,
        previous,
        reset,
        changes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::read_signature;
    use crate::model::{Change, Commit, Entry, Mode, TreePath};

    #[test]
    fn events_round_trip() {
        let id = |n: u8| ObjectId::from_bytes(&[n; 32]).expect("32 bytes");
        let entry = |n| Entry {
            mode: Mode::FILE,
            id: id(n),
        };
        let commit = Commit {
            id: id(1),
            tree: id(2),
            parents: vec![id(3)],
            author: read_signature(b"A <a> 1 +0000"),
            committer: read_signature(b"\xff <> 2 -0030"),
            message: b"event 5\n\0\n".to_vec(),
        };
        let change = Change {
            path: TreePath::found(b"a\nb/\xff").expect("a path"),
            old: Some(entry(4)),
            new: None,
        };
        let event = |previous, reset, changes| Event::Commit {
            commit: Box::new(commit.clone()),
            previous,
            reset,
            changes,
        };
        let events = [
            event(None, false, vec![]),
            event(Some(id(9)), true, vec![change.clone(), change]),
            Event::Deleted { previous: id(8) },
        ];
        let mut text = Vec::new();
        for event in &events {
            write_event(&mut text, event);
        }
        let mut rest = &text[..];
        for event in events {
            assert_eq!(take_event(&mut &rest[..rest.len().min(30)]), Ok(None));
            assert_eq!(take_event(&mut rest), Ok(Some(event)));
        }
        assert_eq!(take_event(&mut rest), Ok(None));
        for bad in [
            &b"event 2\nxx\n"[..],
            b"event 2\nxxx",
            b"note 1\n1\n",
            b"event x\n",
        ] {
            assert!(take_event(&mut &*bad).is_err());
        }
    }
}
