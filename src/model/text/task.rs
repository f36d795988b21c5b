//! Task files: what starts long work, and the lines it tells on the way.

use serde_json::{Value, json};

use crate::model::failure::Failure;
use crate::model::request::{Collected, Fault, Fetched};
use crate::model::{Kind, ObjectId};

use super::{JsonBytes, Malformed, quote, read_failure, unbase64, unquote, write_failure};

/// No line is longer; the failure that ends one is cut to it.
const LONGEST: usize = 64 * 1024;

/// One line of a task file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskLine {
    /// `part TOTAL|- bytes|units NAME`: a new part of the work begins.
    Part {
        name: String,
        total: Option<u64>,
        bytes: bool,
    },
    /// `advance N`
    Advance(u64),
    /// `line TEXT`: worth showing as it is.
    Line(String),
    /// `fetched JSON`, `fault JSON`, `collected JSON`: results, at the end.
    Fetched(Fetched),
    Fault(Fault),
    Collected(Collected),
    /// `ok`, the last line of work that succeeded.
    Ok,
    /// `error JSON`, the last line of work that failed.
    Error(Box<Failure>),
}

/// Prints a line, with its newline.
pub fn write_task_line(line: &TaskLine) -> String {
    let quoted = |text: &str| quote(text.as_bytes()).to_string();
    let text = match line {
        TaskLine::Part { name, total, bytes } => {
            let total = total.map_or_else(|| "-".into(), |total| total.to_string());
            let unit = if *bytes { "bytes" } else { "units" };
            format!("part {total} {unit} {}", quoted(name))
        }
        TaskLine::Advance(by) => format!("advance {by}"),
        TaskLine::Line(text) => format!("line {}", quoted(text)),
        TaskLine::Fetched(fetched) => {
            let (local, before) = match &fetched.local {
                Some((name, before)) => (json!(JsonBytes(name)), json!(before)),
                None => (Value::Null, Value::Null),
            };
            let value = json!({
                "remote": JsonBytes(&fetched.remote),
                "id": fetched.id,
                "local": local,
                "before": before,
                "rejected": fetched.rejected,
            });
            format!("fetched {value}")
        }
        TaskLine::Fault(fault) => format!("fault {}", json!(fault)),
        TaskLine::Collected(collected) => format!("collected {}", json!(collected)),
        TaskLine::Ok => "ok".into(),
        TaskLine::Error(failure) => format!("error {}", write_failure(failure, LONGEST - 10)),
    };
    text + "\n"
}

/// Parses a line, without its newline.
pub fn read_task_line(line: &[u8]) -> Result<TaskLine, Malformed> {
    read(line).ok_or(Malformed("a line of a task"))
}

fn read(line: &[u8]) -> Option<TaskLine> {
    let line = std::str::from_utf8(line).ok()?;
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let text = |quoted: &str| String::from_utf8(unquote(quoted.as_bytes())?).ok();
    let value = || serde_json::from_str::<Value>(rest).ok();
    Some(match word {
        "part" => {
            let mut words = rest.splitn(3, ' ');
            let total = match words.next()? {
                "-" => None,
                total => Some(total.parse().ok()?),
            };
            let bytes = match words.next()? {
                "bytes" => true,
                "units" => false,
                _ => return None,
            };
            let name = text(words.next()?)?;
            TaskLine::Part { name, total, bytes }
        }
        "advance" => TaskLine::Advance(rest.parse().ok()?),
        "line" => TaskLine::Line(text(rest)?),
        "fetched" => TaskLine::Fetched(fetched(&value()?)?),
        "fault" => {
            let value = value()?;
            let string = |key: &str| value[key].as_str().map(str::to_owned);
            TaskLine::Fault(Fault {
                what: string("what")?,
                message: string("message")?,
            })
        }
        "collected" => {
            let value = value()?;
            // What a server does not know of is nothing.
            let number = |key: &str| value[key].as_u64().unwrap_or(0);
            TaskLine::Collected(Collected {
                loose_objects: number("loose_objects"),
                loose_bytes: number("loose_bytes"),
                packs: number("packs"),
                pack_bytes: number("pack_bytes"),
                transactions: number("transactions"),
                leftovers: number("leftovers"),
            })
        }
        "ok" if rest.is_empty() => TaskLine::Ok,
        "error" => TaskLine::Error(Box::new(read_failure(rest)?)),
        _ => return None,
    })
}

fn fetched(value: &Value) -> Option<Fetched> {
    let bytes = |value: &Value| match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        other => unbase64(other["base64"].as_str()?),
    };
    let id = |value: &Value| ObjectId::from_hex(value.as_str()?.as_bytes());
    let local = match &value["local"] {
        Value::Null => None,
        name => {
            let before = match &value["before"] {
                Value::Null => None,
                before => Some(id(before)?),
            };
            Some((bytes(name)?, before))
        }
    };
    Some(Fetched {
        remote: bytes(&value["remote"])?,
        id: id(&value["id"])?,
        local,
        rejected: value["rejected"].as_str().map(str::to_owned),
    })
}

/// Prints what starts a fetch or a push: the URL or the remote's name, then
/// the refspecs, one a line. None may hold a newline: [`Kind::Invalid`].
pub fn write_task_arguments(remote: &str, refspecs: &[String]) -> Result<String, Failure> {
    let mut text = String::new();
    for word in std::iter::once(remote).chain(refspecs.iter().map(String::as_str)) {
        if word.contains('\n') {
            let message = format!("{word:?} holds a newline");
            return Err(Failure::new(Kind::Invalid, message));
        }
        text.push_str(word);
        text.push('\n');
    }
    Ok(text)
}

/// Parses what [`write_task_arguments`] gives; the last newline may be missing.
pub fn read_task_arguments(text: &[u8]) -> Result<(String, Vec<String>), Malformed> {
    let wrong = Malformed("a URL and refspecs, one a line");
    let text = std::str::from_utf8(text).map_err(|_| wrong)?;
    let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    let remote = lines
        .next()
        .filter(|remote| !remote.is_empty())
        .ok_or(wrong)?;
    Ok((remote.to_owned(), lines.map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_round_trip() {
        let id = ObjectId::from_bytes(&[6; 20]).expect("20 bytes");
        let fetched = |local, rejected| {
            TaskLine::Fetched(Fetched {
                remote: b"refs/heads/\xff".to_vec(),
                id,
                local,
                rejected,
            })
        };
        let part = |name: &str, total| TaskLine::Part {
            name: name.into(),
            total,
            bytes: total.is_some(),
        };
        for line in [
            part("receiving objects", Some(7)),
            part("two\n\"lines\"", None),
            TaskLine::Advance(u64::MAX),
            TaskLine::Line(String::new()),
            TaskLine::Line("remote: \r\u{1b}[1m 5 %\nx".into()),
            fetched(None, Some("no".into())),
            fetched(Some((b"refs/heads/x".to_vec(), None)), None),
            fetched(Some((b"refs/\xfe".to_vec(), Some(id))), None),
            TaskLine::Fault(Fault {
                what: "refs/\n".into(),
                message: "gone".into(),
            }),
            TaskLine::Collected(Collected {
                loose_objects: 1,
                loose_bytes: 2,
                packs: 3,
                pack_bytes: 4,
                transactions: 5,
                leftovers: 6,
            }),
            TaskLine::Ok,
            TaskLine::Error(Box::new(Failure::missing("x\ny"))),
        ] {
            let text = write_task_line(&line);
            let text = text.strip_suffix('\n').expect("a line");
            assert!(!text.contains('\n'));
            assert_eq!(read_task_line(text.as_bytes()), Ok(line));
        }
        for bad in [
            "",
            "ok x",
            "part x bytes y",
            "advance -1",
            "error x",
            "\"ok\"",
        ] {
            assert!(read_task_line(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn arguments_round_trip() {
        let specs = ["+refs/*:refs/*".to_owned(), "a:b".to_owned()];
        let text = write_task_arguments("file:///x y", &specs).expect("no newline");
        let read = read_task_arguments(text.as_bytes()).expect("as written");
        assert_eq!(read, ("file:///x y".to_owned(), specs.to_vec()));
        let bare = read_task_arguments(b"origin").expect("no newline needed");
        assert_eq!(bare, ("origin".to_owned(), vec![]));
        assert!(write_task_arguments("a\nb", &[]).is_err());
        assert!(read_task_arguments(b"\n").is_err());
    }
}
