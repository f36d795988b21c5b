//! The only file that writes to the terminal.
//!
//! stdout carries records and nothing else; notices, progress, prompts and
//! errors go to stderr. A terminal changes looks, never content.

use std::io::{self, IsTerminal as _, Write};

/// How this run speaks to its user.
#[derive(Clone, Debug)]
pub struct Ui {
    /// `--json`: a record is one line of JSON.
    pub json: bool,
}

impl Ui {
    /// Prints one record: as one line of JSON under `--json`, otherwise with `render`.
    pub fn show<T: serde::Serialize + ?Sized>(
        &self,
        record: &T,
        render: impl FnOnce(&T, &mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, record).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            render(record, &mut out)?;
        }
        Ok(())
    }

    /// Prints a notice on stderr.
    pub fn note(&self, text: &str) {
        // A closed stderr is no reason to fail.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Tells whether prompts may be shown: stdin and stderr are terminals.
    pub fn interactive(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }
}
