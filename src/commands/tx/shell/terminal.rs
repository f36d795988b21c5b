//! Lines from a terminal: editing, history and completion.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::CommandFactory as _;
use rustyline::completion::{
    Completer, FilenameCompleter, Pair, Quote, escape, extract_word, unescape,
};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, CompletionType, Config, Context, Editor, Helper};
use tokio::runtime::Handle;

use super::Line;
use crate::client::{At, Client};
use crate::commands::Session;
use crate::model::TreePath;
use crate::ui::Ui;

/// A terminal that gives lines.
pub(super) struct Terminal {
    /// None where the terminal is too simple for it.
    editor: Option<Editor<Candidates, DefaultHistory>>,
    history: Option<PathBuf>,
    ui: Ui,
}

impl Terminal {
    pub fn new(session: &Session) -> anyhow::Result<Self> {
        let mut terminal = Self {
            editor: None,
            history: None,
            ui: session.ui.clone(),
        };
        let simple = |term: &std::ffi::OsStr| term.is_empty() || term == "dumb";
        if std::env::var_os("TERM").is_none_or(|term| simple(&term)) {
            return Ok(terminal);
        }
        let config = Config::builder()
            // stdout is for data.
            .behavior(Behavior::PreferTerm)
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Candidates {
            client: Arc::clone(&session.client),
            runtime: Handle::current(),
            at: None,
            files: FilenameCompleter::new(),
        }));
        terminal.history = history();
        if let Some(history) = &terminal.history {
            // The first time there is none.
            let _ = editor.load_history(history);
        }
        terminal.editor = Some(editor);
        Ok(terminal)
    }

    /// Reads one line; `None` at the end. Paths are completed from `at`.
    pub fn read(
        mut self,
        prompt: &str,
        at: Option<At>,
    ) -> anyhow::Result<(Self, anyhow::Result<Option<String>>)> {
        let Some(editor) = &mut self.editor else {
            self.ui.prompt(prompt);
            let line = super::read_line();
            let line =
                line.map(|line| line.map(|line| String::from_utf8_lossy(&line).into_owned()));
            return Ok((self, line));
        };
        if let Some(candidates) = editor.helper_mut() {
            candidates.at = at;
        }
        let line = match editor.readline(prompt) {
            Ok(line) => {
                if editor.add_history_entry(&line).unwrap_or(false)
                    && let Some(history) = &self.history
                {
                    // A history that cannot be kept is no reason to stop.
                    let _ = editor.append_history(history);
                }
                Ok(Some(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
            Err(ReadlineError::Eof) => Ok(None),
            Err(error) => Err(error.into()),
        };
        Ok((self, line))
    }
}

/// Returns where the history is kept (XDG Base Directory Specification), its
/// folder made.
fn history() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let state = set("XDG_STATE_HOME")
        .filter(|state| state.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    let folder = state.join("dk");
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&folder).ok()?;
    Some(folder.join("history"))
}

/// What can be typed next.
struct Candidates {
    client: Arc<dyn Client>,
    runtime: Handle,
    at: Option<At>,
    files: FilenameCompleter,
}

/// What a word of a command is.
enum Word {
    Command,
    Path,
    Branch,
    File,
}

impl Completer for Candidates {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, typed) = extract_word(line, position, Some('\\'), is_break);
        let word = match kind(&line[..start]) {
            Word::File => return self.files.complete(line, position, context),
            word => word,
        };
        let typed = unescape(typed, Some('\\')).into_owned();
        let names = match word {
            Word::Command | Word::File => commands(),
            Word::Branch => self.branches(),
            Word::Path => self.paths(&typed),
        };
        let fits = |name: &String| name.starts_with(&typed) && !name.contains(char::is_control);
        let pairs = names.into_iter().filter(fits);
        let pairs = pairs.map(|name| {
            let mut replacement = escape(name.clone(), Some('\\'), is_break, Quote::None);
            // A folder goes on, anything else is whole.
            if !name.ends_with('/') {
                replacement.push(' ');
            }
            Pair {
                display: name,
                replacement,
            }
        });
        Ok((start, pairs.collect()))
    }
}

impl Candidates {
    fn branches(&self) -> Vec<String> {
        let branches = self.runtime.block_on(self.client.branches());
        let branches = branches.unwrap_or_default().into_iter();
        branches
            .filter_map(|branch| String::from_utf8(branch.name.as_bytes().to_vec()).ok())
            .collect()
    }

    /// Returns the paths in the folder of what is typed; folders with a slash.
    fn paths(&self, typed: &str) -> Vec<String> {
        let folder = typed.rfind('/').map_or("", |slash| &typed[..=slash]);
        let (Some(at), Ok(path)) = (&self.at, TreePath::new(folder)) else {
            return Vec::new();
        };
        let items = self.runtime.block_on(self.client.list(at, &path, false));
        let items = items.unwrap_or_default().into_iter();
        items
            .filter_map(|item| {
                let name = std::str::from_utf8(item.path.as_bytes()).ok()?;
                let slash = if item.entry.mode.is_dir() { "/" } else { "" };
                Some(format!("{folder}{name}{slash}"))
            })
            .collect()
    }
}

/// Returns what comes after the words before it.
fn kind(before: &str) -> Word {
    let words: Vec<&str> = before
        .split_whitespace()
        .filter(|word| !word.starts_with('-'))
        .collect();
    match words.as_slice() {
        [] | ["help"] => Word::Command,
        ["import"] | ["write" | "append", _] | ["apply"] => Word::File,
        ["merge" | "diff" | "parents" | "open", ..] => Word::Branch,
        _ => Word::Path,
    }
}

fn commands() -> Vec<String> {
    let commands = Line::command();
    let names = commands
        .get_subcommands()
        .map(|one| one.get_name().to_string());
    names.chain(["help".into()]).collect()
}

fn is_break(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\\' | '"' | '\'' | '#' | '$' | '&' | ';' | '|' | '<' | '>'
        )
}

impl Helper for Candidates {}
impl Hinter for Candidates {
    type Hint = String;
}
impl Highlighter for Candidates {}
impl Validator for Candidates {}
