//! What is written to the command files of the tree, one line each, and the
//! line a store tells of itself.

use std::time::Duration;

use serde_json::Value;

use crate::model::request::{Expect, MoveOptions};
use crate::model::{HashKind, Identity, ObjectId};

use super::Malformed;

/// Encodes text as one element of a path: `%`, `/`, blanks, control characters
/// and bytes beyond ASCII become `%XX`, and so does what is in `also`.
pub fn percent_encode(bytes: &[u8], also: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_graphic() && !b"%/".contains(byte) && !also.contains(byte) {
            out.push(*byte);
        } else {
            out.push(b'%');
            out.push(DIGITS[usize::from(byte >> 4)]);
            out.push(DIGITS[usize::from(byte & 15)]);
        }
    }
    out
}

/// Undoes [`percent_encode`]; other bytes stand for themselves. Nothing where
/// two hexadecimal digits do not follow a `%`.
pub fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(out)
}

/// `branch/B/reset`: `NEW [expect=ID|expect=0] [ff-only] [force]`; a NEW of 0
/// deletes the branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    pub to: Option<ObjectId>,
    pub options: MoveOptions,
}

/// Parses `ID` or `0`.
pub(super) fn read_expect(word: &str) -> Option<Expect> {
    match word {
        "0" => Some(Expect::Unborn),
        hex => ObjectId::from_hex(hex.as_bytes()).map(Expect::Head),
    }
}

pub(super) fn write_expect(expect: Expect) -> Option<String> {
    match expect {
        Expect::Any => None,
        Expect::Unborn => Some("0".into()),
        Expect::Head(id) => Some(id.to_string()),
    }
}

/// The words of a command; blanks and a newline at its end count as nothing.
fn words(text: &[u8]) -> Result<std::str::SplitAsciiWhitespace<'_>, Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| Malformed("a command"))?;
    Ok(text.split_ascii_whitespace())
}

impl Reset {
    pub fn write(&self) -> String {
        let mut text = self.to.map_or_else(|| "0".into(), |id| id.to_string());
        if let Some(expect) = write_expect(self.options.expect) {
            text.push_str(" expect=");
            text.push_str(&expect);
        }
        if self.options.ff_only {
            text.push_str(" ff-only");
        }
        if self.options.force {
            text.push_str(" force");
        }
        text
    }

    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let wrong = Malformed("\"NEW [expect=ID] [ff-only] [force]\"");
        let mut words = words(text)?;
        let to = match words.next().ok_or(wrong)? {
            "0" => None,
            hex => Some(ObjectId::from_hex(hex.as_bytes()).ok_or(wrong)?),
        };
        let mut options = MoveOptions::default();
        for word in words {
            match word {
                "ff-only" => options.ff_only = true,
                "force" => options.force = true,
                word => {
                    let id = word.strip_prefix("expect=").ok_or(wrong)?;
                    options.expect = read_expect(id).ok_or(wrong)?;
                }
            }
        }
        Ok(Self { to, options })
    }
}

/// `branch/B/rename`: `NEW [force]`, NEW encoded as in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The name as it was written, legal or not.
    pub to: Vec<u8>,
    pub force: bool,
}

impl Rename {
    pub fn write(&self) -> Vec<u8> {
        let mut text = percent_encode(&self.to, b"");
        if self.force {
            text.extend_from_slice(b" force");
        }
        text
    }

    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let wrong = Malformed("\"NEW [force]\"");
        let mut words = text
            .split(|b| b.is_ascii_whitespace())
            .filter(|word| !word.is_empty());
        let to = percent_decode(words.next().ok_or(wrong)?).ok_or(wrong)?;
        let force = match (words.next(), words.next()) {
            (None, _) => false,
            (Some(b"force"), None) => true,
            _ => return Err(wrong),
        };
        Ok(Self { to, force })
    }
}

/// `maintenance/tx`: `older-than=SECONDS [dry-run]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectTransactions {
    pub older_than: Duration,
    pub dry_run: bool,
}

impl CollectTransactions {
    pub fn write(&self) -> String {
        let (whole, parts) = (self.older_than.as_secs(), self.older_than.subsec_nanos());
        let mut text = format!("older-than={whole}");
        if parts > 0 {
            text.push_str(&format!(".{parts:09}"));
        }
        if self.dry_run {
            text.push_str(" dry-run");
        }
        text
    }

    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let wrong = Malformed("\"older-than=SECONDS [dry-run]\"");
        let (mut older_than, mut dry_run) = (None, false);
        for word in words(text)? {
            if word == "dry-run" {
                dry_run = true;
                continue;
            }
            let age = word.strip_prefix("older-than=").ok_or(wrong)?;
            let (whole, parts) = age.split_once('.').unwrap_or((age, "0"));
            let digits = |text: &str| {
                let all = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
                all.then_some(())
            };
            digits(parts).ok_or(wrong)?;
            let nanos = format!("{parts:0<9.9}").parse().map_err(|_| wrong)?;
            digits(whole).ok_or(wrong)?;
            older_than = Some(Duration::new(whole.parse().map_err(|_| wrong)?, nanos));
        }
        let older_than = older_than.ok_or(wrong)?;
        Ok(Self {
            older_than,
            dry_run,
        })
    }
}

/// `debug/id`: what serves, and what store it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identification {
    /// Of the program.
    pub version: String,
    /// Tells the store from every other; nothing for one in memory.
    pub id: Option<String>,
    pub hash: HashKind,
    pub read_only: bool,
    /// Who commits when nobody is named.
    pub identity: Identity,
}

impl Identification {
    /// Prints `{"version", "id", "hash", "read_only", "name", "email"}` and a
    /// newline.
    pub fn write(&self) -> String {
        let value = serde_json::json!({
            "version": self.version,
            "id": self.id,
            "hash": self.hash.name(),
            "read_only": self.read_only,
            "name": self.identity.name,
            "email": self.identity.email,
        });
        format!("{value}\n")
    }

    pub fn read(text: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let string = |key: &str| value[key].as_str().map(str::to_owned);
        let hash = string("hash")?;
        Some(Self {
            version: string("version")?,
            id: string("id"),
            hash: [HashKind::Sha1, HashKind::Sha256]
                .into_iter()
                .find(|kind| kind.name() == hash)?,
            read_only: value["read_only"].as_bool()?,
            identity: Identity {
                name: string("name")?,
                email: string("email")?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_round_trips() {
        let all: Vec<u8> = (0..=255).collect();
        let text = percent_encode(&all, b"?&");
        assert!(text.is_ascii() && !text.contains(&b'/') && !text.contains(&b'?'));
        assert_eq!(percent_decode(&text), Some(all));
        assert_eq!(
            percent_encode(b"a/b%c d:~^\xc3", b""),
            b"a%2Fb%25c%20d:~^%C3"
        );
        assert_eq!(percent_decode(b"\xff%2f").as_deref(), Some(&b"\xff/"[..]));
        for bad in [&b"%"[..], b"%2", b"%zz", b"%+1", b"%\xff\xff"] {
            assert_eq!(percent_decode(bad), None);
        }
    }

    #[test]
    fn commands_round_trip() {
        let id = ObjectId::from_bytes(&[5; 20]).expect("20 bytes");
        for to in [None, Some(id)] {
            for expect in [Expect::Any, Expect::Unborn, Expect::Head(id)] {
                for (ff_only, force) in [(false, true), (true, false)] {
                    let options = MoveOptions {
                        expect,
                        ff_only,
                        force,
                    };
                    let reset = Reset { to, options };
                    assert_eq!(Reset::read(reset.write().as_bytes()), Ok(reset));
                }
            }
        }
        for bad in [&b""[..], b"x", b"0 nonsense", b"0 expect=x", b"\xff"] {
            assert!(Reset::read(bad).is_err());
        }
        for force in [false, true] {
            let to = b"a b/\xff%".to_vec();
            let rename = Rename { to, force };
            assert_eq!(Rename::read(&rename.write()), Ok(rename));
        }
        for bad in [&b" \n"[..], b"a b", b"a force force", b"%x"] {
            assert!(Rename::read(bad).is_err());
        }
        for age in [Duration::ZERO, Duration::MAX, Duration::new(3, 4_000_000)] {
            for dry_run in [false, true] {
                let older_than = age;
                let collect = CollectTransactions {
                    older_than,
                    dry_run,
                };
                let text = collect.write();
                assert_eq!(CollectTransactions::read(text.as_bytes()), Ok(collect));
            }
        }
        let half = CollectTransactions::read(b"older-than=1.5\n").expect("legal");
        assert_eq!(half.older_than, Duration::from_millis(1500));
        for bad in [
            "",
            "dry-run",
            "older-than=",
            "older-than=+1",
            "older-than=1.+5",
            "x",
        ] {
            assert!(CollectTransactions::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_store_tells_of_itself() {
        let told = Identification {
            version: "1".into(),
            id: Some("x y".into()),
            hash: HashKind::Sha256,
            read_only: true,
            identity: Identity {
                name: "\"ü".into(),
                email: String::new(),
            },
        };
        let text = told.write();
        assert!(text.ends_with("}\n"));
        assert_eq!(Identification::read(text.as_bytes()), Some(told));
        assert_eq!(Identification::read(b"{}"), None);
    }
}
