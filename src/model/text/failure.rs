//! Failures as one line of JSON: what a server of ours tells a client of ours
//! beside the error number.
//!
//! `{"kind", "message", "missing"?, "actual"?: id or null, "edit"?, "hint"?,
//! "paths"?: [[path, conflict], …], "causes"?: […]}`

use serde_json::{Map, Value, json};

use crate::model::failure::Failure;
use crate::model::{ConflictKind, Kind, ObjectId, TreePath};

use super::{JsonBytes, unbase64};

const KINDS: [(Kind, &str); 18] = [
    (Kind::NotFound, "not-found"),
    (Kind::Exists, "exists"),
    (Kind::IsDirectory, "is-directory"),
    (Kind::NotDirectory, "not-directory"),
    (Kind::NotEmpty, "not-empty"),
    (Kind::Invalid, "invalid"),
    (Kind::Ambiguous, "ambiguous"),
    (Kind::Conflict, "conflict"),
    (Kind::HeadMoved, "head-moved"),
    (Kind::ReadOnly, "read-only"),
    (Kind::Denied, "denied"),
    (Kind::Busy, "busy"),
    (Kind::Corrupt, "corrupt"),
    (Kind::NoSpace, "no-space"),
    (Kind::Unsupported, "unsupported"),
    (Kind::Interrupted, "interrupted"),
    (Kind::Overrun, "overrun"),
    (Kind::Io, "io"),
];

const CONFLICTS: [(ConflictKind, &str); 4] = [
    (ConflictKind::FileVsDir, "file-vs-dir"),
    (ConflictKind::ChangedBoth, "changed-both"),
    (ConflictKind::AddAdd, "add-add"),
    (ConflictKind::AddDel, "add-del"),
];

fn word<T: PartialEq>(table: &[(T, &'static str)], value: &T) -> &'static str {
    let found = table.iter().find(|(known, _)| known == value);
    found.expect("every value is in the table").1
}

fn value<T: Copy>(table: &[(T, &str)], word: &str) -> Option<T> {
    let found = table.iter().find(|(_, known)| *known == word);
    found.map(|(value, _)| *value)
}

/// Prints a failure in at most `limit` bytes (which must be 256 at least): of
/// what does not fit first the inner causes are left out, then the last paths,
/// then the hint and the end of the message.
pub fn write_failure(failure: &Failure, limit: usize) -> String {
    let mut map = Map::new();
    map.insert("kind".into(), word(&KINDS, &failure.kind).into());
    map.insert("message".into(), "".into());
    if let Some(actual) = &failure.actual {
        map.insert("actual".into(), actual.map(|id| id.to_string()).into());
    }
    if let Some(edit) = failure.edit {
        map.insert("edit".into(), edit.into());
    }
    let mut left = limit.saturating_sub(length(&map));
    let message = cut(&failure.message, left);
    left -= escaped(message);
    map.insert("message".into(), message.into());
    // What does not exist is mostly named in the message too, and means nothing in part.
    for (key, text) in [("missing", &failure.missing), ("hint", &failure.hint)] {
        let Some(text) = text else { continue };
        // With quotes, colon and comma.
        let length = key.len() + escaped(text) + 6;
        if length <= left {
            left -= length;
            map.insert(key.into(), text.as_str().into());
        }
    }
    let path = |(path, kind): &(TreePath, ConflictKind)| {
        json!([JsonBytes(path.as_bytes()), word(&CONFLICTS, kind)])
    };
    for (key, all) in [
        (
            "paths",
            &mut failure.paths.iter().map(path) as &mut dyn Iterator<Item = Value>,
        ),
        (
            "causes",
            &mut failure.causes.iter().map(|cause| cause.as_str().into()),
        ),
    ] {
        let mut kept = Vec::new();
        left = left.saturating_sub(key.len() + 6);
        for item in all {
            let length = item.to_string().len() + 1;
            if length > left {
                break;
            }
            left -= length;
            kept.push(item);
        }
        if !kept.is_empty() {
            map.insert(key.into(), kept.into());
        }
    }
    Value::from(map).to_string()
}

fn length(map: &Map<String, Value>) -> usize {
    serde_json::to_string(map).map_or(usize::MAX, |text| text.len())
}

/// The length of a text in JSON, without its quotes.
fn escaped(text: &str) -> usize {
    Value::from(text).to_string().len() - 2
}

/// The longest beginning of a text that in JSON is no longer than `most`.
fn cut(text: &str, most: usize) -> &str {
    if escaped(text) <= most {
        return text;
    }
    let mut length = 0;
    for (at, c) in text.char_indices() {
        length += escaped(c.encode_utf8(&mut [0; 4]));
        if length > most {
            return &text[..at];
        }
    }
    text
}

/// Parses what [`write_failure`] gives; a kind it does not know is [`Kind::Io`].
pub fn read_failure(text: &str) -> Option<Failure> {
    let Value::Object(map) = serde_json::from_str(text).ok()? else {
        return None;
    };
    let string = |key: &str| map.get(key).and_then(Value::as_str);
    let array = |key: &str| map.get(key).and_then(Value::as_array).into_iter().flatten();
    let mut failure = Failure::new(
        value(&KINDS, string("kind")?).unwrap_or(Kind::Io),
        string("message")?,
    );
    failure.missing = string("missing").map(Into::into);
    failure.hint = string("hint").map(Into::into);
    failure.actual = match map.get("actual") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(id) => Some(Some(ObjectId::from_hex(id.as_str()?.as_bytes())?)),
    };
    if let Some(edit) = map.get("edit") {
        failure.edit = Some(usize::try_from(edit.as_u64()?).ok()?);
    }
    for pair in array("paths") {
        let path = match &pair[0] {
            Value::String(text) => text.clone().into_bytes(),
            other => unbase64(other["base64"].as_str()?)?,
        };
        let path = TreePath::found(&path)?;
        failure
            .paths
            .push((path, value(&CONFLICTS, pair[1].as_str()?)?));
    }
    for cause in array("causes") {
        failure.causes.push(cause.as_str()?.into());
    }
    Some(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Failure {
        let path = |bytes: &[u8]| TreePath::found(bytes).expect("a path");
        Failure {
            kind: Kind::Conflict,
            message: "a \"quoted\"\nmessage \u{1b} ü".into(),
            missing: Some("x".into()),
            paths: vec![
                (path(b"a/b"), ConflictKind::AddAdd),
                (path(b"\xff\n"), ConflictKind::FileVsDir),
            ],
            actual: Some(ObjectId::from_bytes(&[7; 32])),
            edit: Some(3),
            hint: Some("do".into()),
            causes: vec!["one".into(), "two\0".into()],
        }
    }

    #[test]
    fn failures_round_trip() {
        assert_eq!(read_failure(&write_failure(&full(), 65536)), Some(full()));
        for (kind, _) in KINDS {
            let mut failure = Failure::new(kind, "");
            failure.actual = Some(None);
            assert_eq!(read_failure(&write_failure(&failure, 256)), Some(failure));
        }
        for bad in ["", "[]", "{}", "{\"kind\":1}", "{\"kind\":\"io\"}"] {
            assert_eq!(read_failure(bad), None, "{bad}");
        }
        let later = read_failure(r#"{"kind":"later","message":"m"}"#);
        assert_eq!(later, Some(Failure::new(Kind::Io, "m")));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut failure = full();
        failure.paths = vec![failure.paths[0].clone(); 100_000];
        failure.causes = vec!["\u{1}".repeat(100); 3];
        failure.message.push_str(&"\u{1}ü".repeat(1000));
        for limit in (256..10_000).step_by(101) {
            let text = write_failure(&failure, limit);
            assert!(text.len() <= limit, "{limit}: {}", text.len());
            let read = read_failure(&text).expect("whole");
            assert_eq!((read.kind, read.edit), (failure.kind, failure.edit));
            assert!(failure.message.starts_with(&read.message));
            assert!(limit < 9500 || !read.paths.is_empty() && read.causes.is_empty());
        }
    }
}
