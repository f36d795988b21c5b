//! What a daemon says about its work, by target and level.
//!
//! Rooms log with `tracing`; this file says where it goes and how much of it.
//! Until [`start`] nothing is logged and next to nothing is spent on it. After
//! it, a log that cannot be written never holds up or ends the work: a file
//! that fails is replaced by stderr until it can be written again, and what a
//! stuck reader does not take is dropped and counted.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::metadata::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

mod record;
mod writer;

/// A part of the program whose level can be set by itself.
pub struct Target {
    pub name: &'static str,
    /// What it tells, for whoever sets its level.
    pub doc: &'static str,
}

/// The targets there are, in order of their names. What a room of that name
/// and the rooms inside it log goes by it.
pub const TARGETS: &[Target] = &[
    Target {
        name: "bridge",
        doc: "keeping a branch and a forge in step",
    },
    Target {
        name: "ci",
        doc: "tests of branches and pull requests",
    },
    Target {
        name: "namespace",
        doc: "the file tree",
    },
    Target {
        name: "ninep",
        doc: "9P connections and requests",
    },
    Target {
        name: "serve",
        doc: "listeners, and pushing by itself",
    },
    Target {
        name: "store",
        doc: "the database",
    },
];

/// The words a level is set with, least first.
pub const LEVELS: &[&str] = &["quiet", "app", "error", "warning", "info", "debug"];

/// The level of every target until it is set: `warning`.
const USUAL: usize = 3;

/// The level of each target, as a place in [`LEVELS`].
static CHOSEN: [AtomicUsize; TARGETS.len()] = [const { AtomicUsize::new(USUAL) }; TARGETS.len()];

/// Returns a target's level, a word of [`LEVELS`].
pub fn level(target: &str) -> &'static str {
    let place = TARGETS.iter().position(|known| known.name == target);
    LEVELS[place.map_or(USUAL, |place| CHOSEN[place].load(Ordering::Relaxed))]
}

/// Sets a target's level in the whole process. `false`: no such target or word.
pub fn set_level(target: &str, word: &str) -> bool {
    let place = TARGETS.iter().position(|known| known.name == target);
    let level = LEVELS.iter().position(|known| *known == word);
    let (Some(place), Some(level)) = (place, level) else {
        return false;
    };
    CHOSEN[place].store(level, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
    true
}

/// How a record looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `TIME LEVEL TARGET: MESSAGE KEY=VALUE …`
    #[default]
    Text,
    /// An object with `time`, `level`, `target`, `message`, and a key each.
    Json,
}

/// Where records go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    #[default]
    Stderr,
    /// systemd's journal, with every key as a field.
    Journald,
    /// The end of a file.
    File(PathBuf),
}

/// Why a text is no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log goes to stderr, journald or file:PATH")]
pub struct NoDestination;

impl FromStr for Destination {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Self, NoDestination> {
        match text {
            // DataKit's names; its stderr is ours.
            "stderr" | "quiet" | "timestamp" => Ok(Self::Stderr),
            "journald" => Ok(Self::Journald),
            _ => match text.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Ok(Self::File(path.into())),
                _ => Err(NoDestination),
            },
        }
    }
}

/// Prints a line on stderr.
pub type Say = Box<dyn Fn(&str) + Send>;

/// The log of this process. Dropping it waits, for a moment, until what was
/// logged is written.
pub struct Log {
    writer: Option<writer::Writer>,
}

/// Begins to log, once in a process. `say` prints on stderr what is to go
/// there. Trouble with the destination is said there, and is no failure.
pub fn start(destination: Destination, format: Format, say: Say) -> Log {
    let levels = Levels;
    let file = match destination {
        Destination::Journald => match tracing_journald::Layer::new() {
            Ok(journal) => {
                let journal = journal.with_syslog_identifier("dk".into());
                let subscriber = tracing_subscriber::registry().with(journal).with(levels);
                let _ = tracing::subscriber::set_global_default(subscriber);
                return Log { writer: None };
            }
            Err(error) => {
                say(&format!(
                    "dk: cannot log to journald: {error}; logging to stderr instead"
                ));
                None
            }
        },
        Destination::Stderr => None,
        Destination::File(path) => Some(path),
    };
    let writer = writer::Writer::new(file, say);
    let lines = record::Lines::new(format, writer.queue());
    let subscriber = tracing_subscriber::registry().with(lines).with(levels);
    let _ = tracing::subscriber::set_global_default(subscriber);
    Log {
        writer: Some(writer),
    }
}

impl Log {
    /// Opens the file anew, after somebody moved it away.
    pub fn reopen(&self) {
        if let Some(writer) = &self.writer {
            writer.reopen();
        }
    }
}

/// Lets pass what the levels ask for. Others' crates are let pass as far as
/// they tell of errors.
struct Levels;

impl Levels {
    fn limit(target: &str) -> LevelFilter {
        let Some(room) = room(target) else {
            return LevelFilter::ERROR;
        };
        let place = TARGETS.iter().position(|known| known.name == room);
        match place.map_or(USUAL, |place| CHOSEN[place].load(Ordering::Relaxed)) {
            0 | 1 => LevelFilter::OFF,
            2 => LevelFilter::ERROR,
            3 => LevelFilter::WARN,
            4 => LevelFilter::INFO,
            _ => LevelFilter::TRACE,
        }
    }
}

/// What the paths of this program begin with.
const CRATE: &str = "datakit";

/// Returns the name of the target that a place in this program logs by: the
/// path of a module inside the room `ninep`, or `ninep` itself, is `ninep`.
fn room(target: &str) -> Option<&'static str> {
    let mut steps = target.split("::").peekable();
    if steps.peek() == Some(&CRATE) {
        steps.next();
    }
    let mut name = steps.next()?;
    if name == "commands" {
        name = steps.next()?;
    }
    let known = TARGETS.iter().find(|known| known.name == name)?;
    Some(known.name)
}

/// Returns the word for a level.
fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

impl<S: Subscriber> Layer<S> for Levels {
    fn register_callsite(&self, of: &'static Metadata<'static>) -> Interest {
        match *of.level() <= Self::limit(of.target()) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, of: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *of.level() <= Self::limit(of.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let limits = TARGETS.iter().map(|target| Self::limit(target.name));
        limits.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_set_by_words() {
        assert_eq!(level("ninep"), "warning");
        for word in LEVELS {
            assert!(set_level("ninep", word));
            assert_eq!(level("ninep"), *word);
        }
        assert_eq!(Levels::limit("ninep"), LevelFilter::TRACE);
        assert_eq!(Levels::limit("store"), LevelFilter::WARN);
        assert!(!set_level("ninep", "loud") && !set_level("nothing", "info"));
        assert_eq!(level("ninep"), "debug");
    }

    #[test]
    fn places_belong_to_targets() {
        for (place, name) in [
            (&["ninep"][..], Some("ninep")),
            (&[CRATE, "ninep", "server", "connection"], Some("ninep")),
            (&[CRATE, "commands", "serve", "push"], Some("serve")),
            (&[CRATE, "ninepin"], None),
            (&[CRATE], None),
            (&["gix", "ninep"], None),
        ] {
            let place = place.join("::");
            assert_eq!(room(&place), name, "{place}");
        }
    }

    #[test]
    fn destinations_are_words() {
        assert_eq!("stderr".parse(), Ok(Destination::Stderr));
        assert_eq!("journald".parse(), Ok(Destination::Journald));
        assert_eq!(
            "file:/var/log/dk".parse(),
            Ok(Destination::File("/var/log/dk".into()))
        );
        for text in ["", "file:", "/var/log/dk", "syslog"] {
            assert_eq!(text.parse::<Destination>(), Err(NoDestination));
        }
    }

    #[test]
    fn targets_are_in_order() {
        assert!(TARGETS.is_sorted_by_key(|target| target.name));
    }
}
