//! Globs over the paths of a tree, and patterns over targets.
//!
//! In both `*` and `?` stop at `/`, `**` does not, `[a-z]` and `{a,b}` are as
//! in the shell, and `\` takes a character's meaning away.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::model::TreePath;

/// Globs over the paths of a tree.
///
/// A glob that matches a folder matches all below it. What matches one of the
/// globs is in, unless it matches one that begins with `!`; with only such
/// globs, everything else is in.
#[derive(Clone, Debug)]
pub struct Globs {
    texts: Vec<String>,
    with: Vec<Part>,
    without: Vec<Part>,
    with_set: GlobSet,
    without_set: GlobSet,
}

/// How much of a folder some globs select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    Whole,
    /// Some of it, perhaps.
    Part,
    Nothing,
}

/// A glob, as far as it is a plain path.
#[derive(Clone, Debug)]
struct Part {
    plain: TreePath,
    /// It selects all that is there and below.
    whole: bool,
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Globs {}

impl Default for Globs {
    fn default() -> Self {
        Self::new(["**"]).expect("the pattern is legal")
    }
}

impl Globs {
    /// Returns the globs these texts spell.
    pub fn new<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, String> {
        let texts: Vec<String> = texts.into_iter().map(|text| text.as_ref().into()).collect();
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let mut sets = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in &texts {
            match text.strip_prefix('!') {
                Some(glob) => add(glob, &mut without, &mut sets.1)?,
                None => add(text, &mut with, &mut sets.0)?,
            }
        }
        if with.is_empty() && !without.is_empty() {
            add("**", &mut with, &mut sets.0)?;
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|error| error.to_string());
        Ok(Self {
            with_set: build(sets.0)?,
            without_set: build(sets.1)?,
            texts,
            with,
            without,
        })
    }

    /// Returns the globs as they were written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Tells whether a file is one of those selected.
    pub fn contain(&self, path: &TreePath) -> bool {
        let matches = |set: &GlobSet| {
            let mut above = Some(path.clone());
            while let Some(folder) = above.filter(|folder| !folder.is_root()) {
                if set.is_match(Path::new(OsStr::from_bytes(folder.as_bytes()))) {
                    return true;
                }
                above = folder.split_last().map(|(above, _)| above);
            }
            false
        };
        matches(&self.with_set) && !matches(&self.without_set)
    }

    /// Returns how much of a folder is selected, so that a walk may stop there.
    pub fn covers(&self, folder: &TreePath) -> Covers {
        let all = |part: &Part| part.whole && folder.starts_with(&part.plain);
        let some = |part: &Part| folder.starts_with(&part.plain) || part.plain.starts_with(folder);
        if self.without.iter().any(all) || !self.with.iter().any(some) {
            Covers::Nothing
        } else if self.with.iter().any(all) && !self.without.iter().any(some) {
            Covers::Whole
        } else {
            Covers::Part
        }
    }
}

/// Adds a glob, checked.
fn add(text: &str, parts: &mut Vec<Part>, set: &mut GlobSetBuilder) -> Result<(), String> {
    if text.is_empty() {
        return Err("a glob is empty".into());
    }
    if text.starts_with('/') {
        return Err(format!(
            "the glob {text:?} begins with a slash: paths start at the root of the tree"
        ));
    }
    let text = text.strip_suffix('/').unwrap_or(text);
    let steps: Vec<&str> = text.split('/').collect();
    if steps.iter().any(|step| matches!(*step, "" | "." | "..")) {
        return Err(format!("the glob {text:?} matches no path of a tree"));
    }
    set.add(glob(text)?);
    let plain = steps.iter().take_while(|step| !step.contains(WILD));
    let plain: Vec<&str> = plain.copied().collect();
    let rest = &steps[plain.len()..];
    parts.push(Part {
        plain: TreePath::new(plain.join("/")).map_err(|error| error.to_string())?,
        whole: rest.is_empty() || rest == ["**"],
    });
    Ok(())
}

/// What a plain path does not hold.
const WILD: [char; 8] = ['*', '?', '[', ']', '{', '}', '\\', '!'];

fn glob(text: &str) -> Result<globset::Glob, String> {
    let glob = GlobBuilder::new(text)
        .literal_separator(true)
        .backslash_escape(true)
        .build();
    glob.map_err(|error| format!("the pattern {text:?} is none: {}", error.kind()))
}

/// Patterns over the targets of one repository: `heads/x`, `tags/x`, `pr/N`.
#[derive(Clone, Debug)]
pub struct Targets {
    texts: Vec<String>,
    set: GlobSet,
}

impl PartialEq for Targets {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Targets {}

impl Targets {
    /// Returns the patterns these texts spell; `prs/` is `pr/`.
    pub fn new<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, String> {
        let patterns = texts.into_iter().map(|text| {
            let text = text.as_ref();
            let text = match text.strip_prefix("prs/") {
                Some(rest) => format!("pr/{rest}"),
                None => text.to_owned(),
            };
            let known = ["heads", "tags", "pr", "*", "**"];
            match text.split('/').next() {
                Some(first) if known.contains(&first) => Ok(text),
                _ => Err(format!(
                    "the pattern {text:?} matches no target: it begins with heads/, tags/ or pr/"
                )),
            }
        });
        Self::over(patterns.collect::<Result<Vec<_>, _>>()?)
    }

    /// Returns the patterns over names of branches these texts spell.
    pub fn branches<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, String> {
        Self::over(texts.into_iter().map(|text| text.as_ref().into()).collect())
    }

    fn over(texts: Vec<String>) -> Result<Self, String> {
        let mut set = GlobSetBuilder::new();
        for text in &texts {
            if text.is_empty() {
                return Err("a pattern is empty".into());
            }
            set.add(glob(text)?);
        }
        let set = set.build().map_err(|error| error.to_string())?;
        Ok(Self { texts, set })
    }

    /// Returns the patterns as they were written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Tells whether one of them matches `heads/x`, `tags/x` or `pr/N`; or a
    /// branch, where they are patterns over branches.
    pub fn contain(&self, target: impl AsRef<[u8]>) -> bool {
        self.set
            .is_match(Path::new(OsStr::from_bytes(target.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).expect("legal")
    }

    #[test]
    fn a_star_stops_at_a_slash() {
        let targets = Targets::new(["heads/*", "tags/v*", "prs/*"]).expect("legal");
        for (target, hit) in [
            ("heads/master", true),
            ("heads/feature/x", false),
            ("tags/v1", true),
            ("tags/v1/x", false),
            ("tags/w", false),
            ("pr/7", true),
        ] {
            assert_eq!(targets.contain(target), hit, "{target}");
        }
        let deep = Targets::new(["heads/**"]).expect("legal");
        assert!(deep.contain("heads/a/b") && !deep.contain("tags/a"));
        assert!(Targets::new(["master"]).is_err() && Targets::new(["heads/[a"]).is_err());
        let odd = Targets::new(["heads/*"]).expect("legal");
        assert!(odd.contain(b"heads/\xff"), "names are bytes");
    }

    #[test]
    fn globs_take_folders_whole_and_leave_out() {
        let globs = Globs::new(["src", "*.md", "a/**/z", "!src/gen/**"]).expect("legal");
        for (file, hit) in [
            ("src/a.c", true),
            ("src/deep/a.c", true),
            ("src/gen/a.c", false),
            ("src/gen", true),
            ("x.md", true),
            ("doc/x.md", false),
            ("a/z", true),
            ("a/b/c/z", true),
            ("a/b/c/z/below", true),
            ("b", false),
        ] {
            assert_eq!(globs.contain(&path(file)), hit, "{file}");
        }
        let all_but = Globs::new(["!docs"]).expect("legal");
        assert!(all_but.contain(&path("a")) && !all_but.contain(&path("docs/a")));
        for bad in ["", "/a", "a/../b", "./a", "a[", "a//b", "x/.git/y"] {
            assert!(Globs::new([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_walk_may_stop_at_folders() {
        let globs = Globs::new(["src/**", "!src/gen", "doc/*.md"]).expect("legal");
        for (folder, covers) in [
            ("", Covers::Part),
            ("src", Covers::Part),
            ("src/a", Covers::Whole),
            ("src/gen", Covers::Nothing),
            ("src/gen/x", Covers::Nothing),
            ("doc", Covers::Part),
            ("tests", Covers::Nothing),
        ] {
            assert_eq!(globs.covers(&path(folder)), covers, "{folder}");
        }
        assert_eq!(Globs::default().covers(&path("")), Covers::Whole);
    }
}
