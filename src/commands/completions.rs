//! `dk completions`, and what shells ask while the user types.
//!
//! A shell runs `dk` itself, with `COMPLETE` set to its name and the words so
//! far after `--`; dk answers with one candidate a line, and after a tab what
//! it is. So names of branches, paths and transactions are those of the store
//! as it is. Both halves of that protocol are in this file.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory as _;
use clap_complete::engine::{self, ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, EnvCompleter, Shells};

use crate::client::{At, Client, Result};
use crate::commands::{Cli, open};
use crate::model::{Rev, TreePath};
use crate::ui::Ui;

/// Print the completions of a shell
///
/// They complete branches, paths and transactions as well as options.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  dk completions bash > ~/.local/share/bash-completion/completions/dk
  dk completions zsh > ~/.zfunc/_dk      with ~/.zfunc in fpath
  dk completions fish > ~/.config/fish/completions/dk.fish")]
pub struct Args {
    /// The shell that will read them
    shell: Shell,
}

/// A shell that can ask dk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

const BASH: &str = r#"# bash completion for dk: dk itself is asked.
_dk() {
    local IFS=$'\n' rest=${COMP_LINE:0:COMP_POINT} word blank cur quote='' cut='' reply i
    local -a words=()
    # bash cuts words at colons: REV:PATH is put together again.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        blank=${rest%%[![:blank:]]*}
        rest=${rest#"$blank"}
        word=${COMP_WORDS[i]}
        ((i == COMP_CWORD)) && word=$rest
        rest=${rest#"$word"}
        if ((i > 0)) && [[ -z $blank ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
    done
    cur=${words[${#words[@]} - 1]}
    if [[ $cur == [\"\']* ]]; then
        quote=${cur:0:1}
        cur=${cur:1}
    else
        # What bash takes for done already is not to be given again.
        [[ $COMP_WORDBREAKS == *:* && $cur == *[:=]* ]] && cut=${cur%"${cur##*[:=]}"}
        cur=${cur//\\/}
    fi
    words[${#words[@]} - 1]=$cur
    COMPREPLY=()
    while IFS=$'\t' read -r reply _; do
        reply=${reply#"${cut//\\/}"}
        [[ -z $quote ]] && printf -v reply %q "$reply"
        COMPREPLY+=("$reply")
    done < <(COMPLETE=bash DK_COMPLETE_INDEX=$((${#words[@]} - 1)) dk -- "${words[@]}" 2> /dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[/:=] ]] && compopt -o nospace 2> /dev/null
    return 0
}
complete -o nosort -F _dk dk 2> /dev/null || complete -F _dk dk
"#;

const ZSH: &str = r#"#compdef dk
# zsh completion for dk: dk itself is asked.
_dk() {
    local value help
    local -a plain open told shown
    while IFS=$'\t' read -r value help; do
        if [[ $value == *[/:=] ]]; then
            open+=("$value")
        elif [[ -n $help ]]; then
            told+=("$value")
            shown+=("$value -- $help")
        else
            plain+=("$value")
        fi
    done < <(COMPLETE=zsh DK_COMPLETE_INDEX=$((CURRENT - 1)) dk -- "${(@Q)words[1,CURRENT]}" 2> /dev/null)
    compadd -V plain -a plain
    compadd -V open -S '' -a open
    compadd -V told -l -d shown -a told
}
if [[ $funcstack[1] == _dk ]]; then
    _dk "$@"
else
    compdef _dk dk
fi
"#;

const FISH: &str = r#"# fish completion for dk: dk itself is asked.
complete --keep-order --exclusive --command dk --arguments "(COMPLETE=fish dk -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token) 2> /dev/null)"
"#;

pub(super) fn run(ui: &Ui, args: &Args) -> anyhow::Result<()> {
    Ok(ui.stdout().write_all(args.shell.script().as_bytes())?)
}

impl Shell {
    fn script(self) -> &'static str {
        match self {
            Self::Bash => BASH,
            Self::Zsh => ZSH,
            Self::Fish => FISH,
        }
    }
}

impl EnvCompleter for Shell {
    fn name(&self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        _var: &str,
        _name: &str,
        _bin: &str,
        _completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        out.write_all(self.script().as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        current: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let index = std::env::var("DK_COMPLETE_INDEX").ok();
        let index = index.and_then(|index| index.parse().ok());
        let index = index.unwrap_or(words.len() - 1).min(words.len() - 1);
        let option =
            |candidate: &CompletionCandidate| candidate.get_value().as_bytes().starts_with(b"-");
        let wanted = words[index].as_bytes().starts_with(b"-");
        let found = engine::complete(command, words, index, current)?;
        // Options are in the way of names until one is begun.
        let hide = !wanted && !found.iter().all(option);
        for candidate in found {
            if hide && option(&candidate) {
                continue;
            }
            let value = candidate.get_value().as_bytes();
            // A name that would break the line is not offered.
            if value.iter().any(u8::is_ascii_control) {
                continue;
            }
            out.write_all(value)?;
            if let Some(help) = candidate.get_help() {
                let help = help.to_string();
                write!(out, "\t{}", help.lines().next().unwrap_or_default())?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Answers a shell that asks for completions, and exits; returns otherwise.
pub fn complete() {
    if std::env::var_os("COMPLETE").is_some() {
        CompleteEnv::with_factory(Cli::command)
            .shells(Shells(&[&Shell::Bash, &Shell::Zsh, &Shell::Fish]))
            .complete();
    }
}

/// Completes BRANCH.
pub(super) fn branch() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| candidates(typed.as_bytes(), b"", b"", branches))
}

/// Completes REV, and the second of REV..REV.
pub(super) fn rev() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let typed = typed.as_bytes();
        let dots = typed.windows(2).position(|pair| pair == b"..");
        let (done, rest) = typed.split_at(dots.map_or(0, |dots| dots + 2));
        candidates(rest, done, b"", branches)
    })
}

/// Completes REV:PATH and BRANCH:PATH.
pub(super) fn rev_path() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        paths(typed.as_bytes()).unwrap_or_else(|| candidates(typed.as_bytes(), b"", b":", branches))
    })
}

/// Completes REV and REV:PATH.
pub(super) fn rev_or_path() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        paths(typed.as_bytes()).unwrap_or_else(|| candidates(typed.as_bytes(), b"", b"", branches))
    })
}

/// Completes TX.
pub(super) fn transaction() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        candidates(typed.as_bytes(), b"", b"", async |client| {
            let known = client.transactions().await?;
            Ok(known.iter().map(|tx| tx.id.as_str().into()).collect())
        })
    })
}

/// Completes a configured remote.
pub(super) fn remote() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        candidates(typed.as_bytes(), b"", b"", async |client| {
            let known = client.remotes().await?;
            Ok(known.into_iter().map(|remote| remote.name.into()).collect())
        })
    })
}

async fn branches(client: Arc<dyn Client>) -> Result<Vec<Vec<u8>>> {
    let known = client.branches().await?;
    Ok(known
        .iter()
        .map(|branch| branch.name.as_bytes().to_vec())
        .collect())
}

/// Returns the paths that `REV:PATH` may go on with; nothing without a colon.
fn paths(typed: &[u8]) -> Option<Vec<CompletionCandidate>> {
    let colon = typed.iter().position(|b| *b == b':')?;
    let slash = typed.iter().rposition(|b| *b == b'/');
    let start = slash.filter(|slash| *slash > colon).unwrap_or(colon) + 1;
    let (done, rest) = typed.split_at(start);
    let (Ok(rev), Ok(folder)) = (Rev::new(&typed[..colon]), TreePath::new(&done[colon + 1..]))
    else {
        return Some(Vec::new());
    };
    Some(candidates(rest, done, b"", async move |client| {
        let at = At::Commit(client.resolve(&rev).await?);
        let items = client.list(&at, &folder, false).await?;
        let name = |item: &crate::model::Item| {
            let mut name = item.path.as_bytes().to_vec();
            name.extend_from_slice(if item.entry.mode.is_dir() { b"/" } else { b"" });
            name
        };
        Ok(items.iter().map(name).collect())
    }))
}

/// Returns those names of the store that begin with what is typed, between
/// what stands before them and what is to follow. Trouble means no names.
fn candidates(
    typed: &[u8],
    before: &[u8],
    after: &[u8],
    names: impl AsyncFnOnce(Arc<dyn Client>) -> Result<Vec<Vec<u8>>>,
) -> Vec<CompletionCandidate> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    let found = runtime.block_on(async {
        let client = open::quietly(store(std::env::args_os()).as_deref()).await?;
        names(client).await.ok()
    });
    let begin_so = found
        .into_iter()
        .flatten()
        .filter(|name| name.starts_with(typed));
    begin_so
        .map(|name| CompletionCandidate::new(OsString::from_vec([before, &name, after].concat())))
        .collect()
}

/// Returns the store the words so far name, or the environment does.
fn store(words: impl Iterator<Item = OsString>) -> Option<OsString> {
    let mut words = words.skip_while(|word| word != "--").skip(1);
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"-C" || bytes == b"--store" {
            return words.next();
        }
        let glued = bytes
            .strip_prefix(b"--store=")
            .or_else(|| bytes.strip_prefix(b"-C"));
        if let Some(store) = glued {
            return Some(OsStr::from_bytes(store).into());
        }
    }
    std::env::var_os("DK_STORE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_found_among_the_words() {
        let find = |words: &[&str]| store(words.iter().map(OsString::from));
        for words in [
            &["dk", "--", "dk", "-C", "x", "ls"][..],
            &["dk", "--", "dk", "-Cx"],
            &["dk", "--", "dk", "ls", "--store=x"],
            &["dk", "--", "dk", "ls", "--store", "x"],
        ] {
            assert_eq!(find(words), Some("x".into()), "{words:?}");
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
