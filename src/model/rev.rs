//! Naming a commit: REV, and REV:PATH.
//!
//! REV is a branch, else a full commit id, else an unambiguous prefix of one,
//! else a full ref name (`refs/tags/v1`) or `HEAD`; then any number of `~N`
//! and `^N`, as in gitrevisions(7). A branch name can hold none of `:`, `~`
//! and `^`, so the first of them ends the name.

use std::fmt;

use super::path::{NameError, TreePath};

/// One step from a commit to an ancestor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `~N`: N times the first parent.
    Ancestor(u32),
    /// `^N`: the Nth parent; `^0` is the commit itself.
    Parent(u32),
}

/// A revision as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rev {
    pub base: Vec<u8>,
    pub steps: Vec<Step>,
}

impl Rev {
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let text = text.as_ref();
        let refuse = |why| NameError {
            name: String::from_utf8_lossy(text).into_owned(),
            what: "revision",
            why,
        };
        let end = text
            .iter()
            .position(|b| matches!(b, b'~' | b'^'))
            .unwrap_or(text.len());
        let (base, mut rest) = text.split_at(end);
        if base.is_empty() {
            return Err(refuse("a branch or a commit id is missing"));
        }
        if base.iter().any(|b| *b == b':' || *b == 0) {
            return Err(refuse("a revision has no ':'"));
        }
        let mut steps = Vec::new();
        while let Some((sign, tail)) = rest.split_first() {
            let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
            let count = match &tail[..digits] {
                [] => 1,
                digits => std::str::from_utf8(digits)
                    .ok()
                    .and_then(|digits| digits.parse().ok())
                    .ok_or_else(|| refuse("the number is too large"))?,
            };
            steps.push(match sign {
                b'~' => Step::Ancestor(count),
                b'^' => Step::Parent(count),
                _ => return Err(refuse("after ~ and ^ only a number may follow")),
            });
            rest = &tail[digits..];
        }
        Ok(Self {
            base: base.to_vec(),
            steps,
        })
    }
}

impl From<super::ObjectId> for Rev {
    fn from(id: super::ObjectId) -> Self {
        Self {
            base: id.to_string().into_bytes(),
            steps: Vec::new(),
        }
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::text::quote(&self.base).fmt(f)?;
        for step in &self.steps {
            match step {
                Step::Ancestor(1) => write!(f, "~")?,
                Step::Ancestor(n) => write!(f, "~{n}")?,
                Step::Parent(1) => write!(f, "^")?,
                Step::Parent(n) => write!(f, "^{n}")?,
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for Rev {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

/// A revision, and a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevPath {
    pub rev: Rev,
    /// The root where no `:` was written.
    pub path: TreePath,
}

impl RevPath {
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let text = text.as_ref();
        let colon = text.iter().position(|b| *b == b':');
        let (rev, path) = match colon {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &b""[..]),
        };
        Ok(Self {
            rev: Rev::new(rev)?,
            path: TreePath::new(path)?,
        })
    }
}

impl fmt::Display for RevPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.rev, self.path)
    }
}

impl std::str::FromStr for RevPath {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_parsed_and_printed() {
        let rev = Rev::new("a/b~3^2^~").expect("legal");
        assert_eq!(rev.base, b"a/b");
        assert_eq!(
            rev.steps,
            [
                Step::Ancestor(3),
                Step::Parent(2),
                Step::Parent(1),
                Step::Ancestor(1)
            ]
        );
        assert_eq!(rev.to_string(), "a/b~3^2^~");
        for bad in ["", "~1", "a~x", "a:b", "a~99999999999"] {
            assert!(Rev::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_colon_divides() {
        let at = RevPath::new("master~1:dir/a:b").expect("legal");
        assert_eq!(at.rev.to_string(), "master~");
        assert_eq!(at.path.as_bytes(), b"dir/a:b");
        assert!(RevPath::new("master").expect("legal").path.is_root());
    }
}
