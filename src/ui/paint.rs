//! Colours: what each kind of text looks like on a terminal.

use std::fmt;

use super::Color;

/// What a piece of text is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A commit's id.
    Commit,
    /// Something that came.
    Added,
    /// Something that went.
    Removed,
    /// Something that changed.
    Updated,
    /// The head of a hunk, or of a section.
    Hunk,
    /// A heading.
    Strong,
    Dir,
    Exec,
    Link,
    /// Something that failed.
    Bad,
    Faint,
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    pub const NONE: Self = Self { on: false };

    pub(super) fn choose(color: Color, terminal: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            on: match color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => terminal && !set("NO_COLOR") && !dumb(),
            },
        }
    }

    /// Returns `thing` in the colour of `look`.
    pub fn of<T: fmt::Display>(self, look: Look, thing: T) -> Painted<T> {
        Painted {
            begin: self.begin(look),
            thing,
            end: self.end(),
        }
    }

    /// Returns the escape sequence that begins a look; empty without colours.
    pub fn begin(self, look: Look) -> &'static str {
        if !self.on {
            return "";
        }
        match look {
            Look::Commit | Look::Updated => "\x1b[33m",
            Look::Added => "\x1b[32m",
            Look::Removed => "\x1b[31m",
            Look::Hunk => "\x1b[36m",
            Look::Strong => "\x1b[1m",
            Look::Dir => "\x1b[1;34m",
            Look::Exec => "\x1b[1;32m",
            Look::Link => "\x1b[1;36m",
            Look::Bad => "\x1b[1;31m",
            Look::Faint => "\x1b[2m",
        }
    }

    /// Returns the escape sequence that ends any look.
    pub fn end(self) -> &'static str {
        if self.on { "\x1b[m" } else { "" }
    }
}

/// See [`Paint::of`].
pub struct Painted<T> {
    begin: &'static str,
    thing: T,
    end: &'static str,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.begin)?;
        self.thing.fmt(f)?;
        f.write_str(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_off_unless_asked_for() {
        assert_eq!(Paint::NONE.of(Look::Commit, "x").to_string(), "x");
        let paint = Paint::choose(Color::Always, false);
        assert_eq!(paint.of(Look::Commit, "x").to_string(), "\x1b[33mx\x1b[m");
    }
}
