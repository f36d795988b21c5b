//! Names: paths inside trees, and branches. Both are bytes.
//!
//! A [`TreePath`] made with [`TreePath::new`] may be written into a tree; one
//! read from a tree keeps whatever name stood there, so that an odd one can be
//! listed and removed. A [`BranchName`] is what `git check-ref-format
//! --branch` accepts.

use std::fmt;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a legal {what}: {why}")]
pub struct NameError {
    pub name: String,
    pub what: &'static str,
    pub why: &'static str,
}

/// A path inside a tree: steps joined with `/`; empty for the root.
///
/// No step is empty and none holds `/` or NUL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root of a tree.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Returns the path `bytes` spell. Slashes at either end and doubled ones
    /// count as nothing, as in the shell; a step Git refuses to check out
    /// (`.`, `..`, `.git` in any disguise) is refused here too.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let mut path = Self::root();
        for step in bytes.as_ref().split(|b| *b == b'/') {
            if step.is_empty() {
                continue;
            }
            if let Some(why) = refused_step(step) {
                return Err(NameError {
                    name: String::from_utf8_lossy(bytes.as_ref()).into_owned(),
                    what: "path",
                    why,
                });
            }
            path.push(step);
        }
        Ok(path)
    }

    /// Returns a path as it was found in a tree, legal for writing or not:
    /// nothing where `bytes` cannot be one.
    pub fn found(bytes: &[u8]) -> Option<Self> {
        let step = |step: &[u8]| !step.is_empty() && !step.contains(&0);
        (bytes.is_empty() || bytes.split(|b| *b == b'/').all(step)).then(|| Self(bytes.to_vec()))
    }

    /// Adds a step as a tree holds it, legal for writing or not.
    pub fn push(&mut self, step: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(step);
    }

    /// Returns this path with one more step.
    #[must_use]
    pub fn join(&self, step: &[u8]) -> Self {
        let mut path = Self(Vec::with_capacity(self.0.len() + 1 + step.len()));
        path.0.extend_from_slice(&self.0);
        path.push(step);
        path
    }

    /// Returns `other` as seen from this folder: the two, one after the other.
    #[must_use]
    pub fn append(&self, other: &Self) -> Self {
        if other.is_root() {
            return self.clone();
        }
        self.join(&other.0)
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the steps from the root down; none for the root.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|step| !step.is_empty())
    }

    /// Returns the folder and the last step; nothing for the root.
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => (Self(self.0[..slash].to_vec()), &self.0[slash + 1..]),
            None => (Self::root(), &self.0),
        })
    }

    /// Tells whether this is `other` or below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || (self.0.starts_with(&other.0)
                && (self.0.len() == other.0.len() || self.0[other.0.len()] == b'/'))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::text::quote(&self.0).fmt(f)
    }
}

impl std::str::FromStr for TreePath {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

/// Says why Git would refuse to check a step out, or nothing where it would not.
fn refused_step(step: &[u8]) -> Option<&'static str> {
    if step == b"." || step == b".." {
        return Some("\".\" and \"..\" are not names");
    }
    if step.contains(&0) {
        return Some("it holds a NUL");
    }
    is_dot_git(step).then_some("Git keeps \".git\" and its disguises for itself")
}

/// `.git` as some file system would read it: case folded, NTFS's short name,
/// trailing dots and blanks and streams, and HFS+'s ignored code points.
fn is_dot_git(step: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(step) else {
        return ntfs_dot_git(step);
    };
    let visible: String = text.chars().filter(|c| !hfs_ignores(*c)).collect();
    visible.eq_ignore_ascii_case(".git") || ntfs_dot_git(step)
}

fn ntfs_dot_git(step: &[u8]) -> bool {
    let stem_end = step.iter().position(|b| *b == b':').unwrap_or(step.len());
    let stem = &step[..stem_end];
    let end = stem
        .iter()
        .rposition(|b| !matches!(b, b'.' | b' '))
        .map_or(0, |last| last + 1);
    let bare =
        |text: &[u8]| text.eq_ignore_ascii_case(b".git") || text.eq_ignore_ascii_case(b"git~1");
    bare(&stem[..end])
        // A backslash divides names on Windows.
        || step.split(|b| *b == b'\\').any(bare)
}

fn hfs_ignores(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// The name of a branch, without `refs/heads/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchName(Vec<u8>);

impl BranchName {
    /// Returns the name, if Git allows it for a branch (git-check-ref-format(1)).
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let name = name.as_ref();
        match refused_branch(name) {
            None => Ok(Self(name.to_vec())),
            Some(why) => Err(NameError {
                name: String::from_utf8_lossy(name).into_owned(),
                what: "branch name",
                why,
            }),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells whether one of the two would have to be a folder of refs and the
    /// other a file in its place (`a` beside `a/b`), which Git forbids.
    pub fn contains_or_within(&self, other: &Self) -> bool {
        let inside = |long: &[u8], short: &[u8]| {
            long.len() > short.len() && long.starts_with(short) && long[short.len()] == b'/'
        };
        inside(&self.0, &other.0) || inside(&other.0, &self.0)
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::text::quote(&self.0).fmt(f)
    }
}

impl std::str::FromStr for BranchName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

fn refused_branch(name: &[u8]) -> Option<&'static str> {
    let bad = |b: &u8| *b < 0x20 || *b == 0x7f || b" ~^:?*[\\".contains(b);
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > 1024 {
        return Some("it is longer than 1024 bytes");
    }
    if name == b"HEAD" || name == b"@" {
        return Some("Git uses that word itself");
    }
    if name.starts_with(b"-") {
        return Some("it begins with a dash");
    }
    if name.iter().any(bad) {
        return Some("it holds a blank, a control character or one of ~^:?*[\\");
    }
    if name.windows(2).any(|pair| pair == b"..") || name.windows(2).any(|pair| pair == b"@{") {
        return Some("it holds \"..\" or \"@{\"");
    }
    if name.ends_with(b".") {
        return Some("it ends with a dot");
    }
    for part in name.split(|b| *b == b'/') {
        if part.is_empty() {
            return Some("a part of it is empty");
        }
        if part.starts_with(b".") || part.ends_with(b".lock") {
            return Some("a part of it begins with a dot or ends with \".lock\"");
        }
        if part.len() > 250 {
            return Some("a part of it is longer than 250 bytes");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_disguised_git_folders_refused() {
        assert_eq!(TreePath::new("/a//b/").expect("legal").as_bytes(), b"a/b");
        assert!(TreePath::new("").expect("legal").is_root());
        for bad in [
            "a/../b",
            "./a",
            "a/.git/config",
            ".GIT",
            "git~1",
            ".git . .",
            ".git::$INDEX_ALLOCATION",
            ".g\u{200c}it",
            "a\0b",
            "x\\.git",
        ] {
            assert!(TreePath::new(bad).is_err(), "{bad:?}");
        }
        for good in [
            ".gitignore",
            "git",
            ".gita",
            "a.git",
            "..a",
            "git~10",
            "b\\c",
        ] {
            assert!(TreePath::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn split_and_prefix() {
        let path = TreePath::new("a/b/c").expect("legal");
        let (folder, last) = path.split_last().expect("not the root");
        assert_eq!((folder.as_bytes(), last), (&b"a/b"[..], &b"c"[..]));
        assert!(path.starts_with(&folder));
        assert!(
            !TreePath::new("ab")
                .expect("legal")
                .starts_with(&TreePath::new("a").expect("legal"))
        );
    }

    #[test]
    fn branch_names_are_gits() {
        for good in ["a", "a/b", "feature-1", "ü", "a.b", "a@b"] {
            assert!(BranchName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", "a..b", ".a", "a/.b", "a.lock", "a.lock/b", "a b", "a~b", "a^",
            "a:b", "a?", "a*", "a[", "a\\b", "a.", "@", "a@{b", "-a", "HEAD", "a\x7f",
        ] {
            assert!(BranchName::new(bad).is_err(), "{bad}");
        }
        let name = |text: &str| BranchName::new(text).expect("legal");
        assert!(name("a").contains_or_within(&name("a/b")));
        assert!(!name("a").contains_or_within(&name("ab")));
    }
}
