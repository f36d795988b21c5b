//! The JSON in the CI's files, written so that the ancestor reads it.

use serde::de::Error as _;
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One of the three states of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Success,
    Pending,
    Failure,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Pending => "pending",
            Self::Failure => "failure",
        }
    }
}

/// A state with its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outcome {
    #[serde(rename = "status")]
    pub state: State,
    pub descr: String,
}

impl Outcome {
    pub fn success(descr: impl Into<String>) -> Self {
        Self::new(State::Success, descr)
    }

    pub fn pending(descr: impl Into<String>) -> Self {
        Self::new(State::Pending, descr)
    }

    pub fn failure(descr: impl Into<String>) -> Self {
        Self::new(State::Failure, descr)
    }

    pub fn new(state: State, descr: impl Into<String>) -> Self {
        Self {
            state,
            descr: descr.into(),
        }
    }
}

/// Where the log of a result is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Logs {
    #[default]
    None,
    /// It grows on this branch (which may not be there yet).
    Live {
        branch: String,
    },
    Saved(SavedLog),
    Pair(Box<Logs>, Box<Logs>),
}

/// A log that does not change any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLog {
    pub title: String,
    pub branch: String,
    pub commit: String,
    pub failed: bool,
}

impl Logs {
    /// Returns the saved logs and the branches of live ones, each in order.
    pub fn branches(&self) -> Vec<&str> {
        match self {
            Self::None => Vec::new(),
            Self::Live { branch } => vec![branch],
            Self::Saved(saved) => vec![&saved.branch],
            Self::Pair(a, b) => [a.branches(), b.branches()].concat(),
        }
    }
}

impl Serialize for Logs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Live<'a> {
            branch: &'a str,
        }
        match self {
            Self::None => serializer.serialize_none(),
            Self::Live { branch } => Live { branch }.serialize(serializer),
            Self::Saved(saved) => saved.serialize(serializer),
            Self::Pair(a, b) if **a == Self::None => b.serialize(serializer),
            Self::Pair(a, b) if **b == Self::None => a.serialize(serializer),
            Self::Pair(a, b) => {
                let mut pair = serializer.serialize_seq(Some(2))?;
                pair.serialize_element(a)?;
                pair.serialize_element(b)?;
                pair.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Logs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Pair(Vec<Logs>),
            Saved(SavedLog),
            Live { branch: String },
        }
        Ok(match Option::<Form>::deserialize(deserializer)? {
            None => Self::None,
            Some(Form::Live { branch }) => Self::Live { branch },
            Some(Form::Saved(saved)) => Self::Saved(saved),
            Some(Form::Pair(pair)) => match <[Self; 2]>::try_from(pair) {
                Ok([a, b]) => Self::Pair(Box::new(a), Box::new(b)),
                Err(_) => return Err(D::Error::custom("logs come in pairs")),
            },
        })
    }
}

/// The result of a cell, with its logs. Two are equal if their JSON is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub result: Outcome,
    #[serde(default)]
    pub logs: Logs,
}

impl Output {
    /// Returns the JSON the ancestor reads: its fields stand in this order.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and flags are JSON")
    }

    /// Reads an output, fields in any order. A live log is as it is.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

/// What is known of a build beside its result (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The target it was first made for.
    pub target: String,
    pub commit: String,
    pub cell: String,
    /// The heading of the log.
    pub title: String,
    /// The text of a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Seconds since 1970.
    pub started: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<i64>,
}

/// The engine that serves a store (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Drawn by lot at each start.
    pub engine: String,
    pub host: String,
    pub pid: u32,
    /// Tells one run of the machine, and one process of a number, from another.
    pub life: String,
    /// Seconds since 1970.
    pub since: i64,
    pub renewed: i64,
    /// Seconds without a renewal after which it is void.
    pub valid: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_the_ancestors() {
        let saved = |branch: &str| {
            Logs::Saved(SavedLog {
                title: "Get \"key\"".into(),
                branch: branch.into(),
                commit: "abc".into(),
                failed: true,
            })
        };
        let live = Logs::Live { branch: "b".into() };
        let pair = |a: &Logs, b: &Logs| Logs::Pair(Box::new(a.clone()), Box::new(b.clone()));
        for (logs, json) in [
            (Logs::None, "null".to_owned()),
            (live.clone(), r#"{"branch":"b"}"#.to_owned()),
            (pair(&Logs::None, &live), r#"{"branch":"b"}"#.to_owned()),
            (
                pair(&saved("x"), &live),
                r#"[{"title":"Get \"key\"","branch":"x","commit":"abc","failed":true},{"branch":"b"}]"#
                    .to_owned(),
            ),
        ] {
            let output = Output {
                result: Outcome::success("it\nworks"),
                logs,
            };
            let text = output.to_json();
            let head = r#"{"result":{"status":"success","descr":"it\nworks"},"logs":"#;
            assert_eq!(text, format!("{head}{json}}}"));
            let read = Output::from_json(text.as_bytes()).expect("as written");
            assert_eq!(read.to_json(), text);
        }
        let other = br#"{"logs":{"commit":"c","failed":false,"branch":"b","title":"t"},
            "result":{"descr":"d","status":"pending"}}"#;
        let read = Output::from_json(other).expect("in any order");
        assert_eq!(read.result, Outcome::pending("d"));
        assert_eq!(read.logs.branches(), ["b"]);
        assert!(Output::from_json(br#"{"result":{"status":"error","descr":""}}"#).is_err());
    }
}
