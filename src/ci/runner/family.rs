//! All processes of a job: the descendants of this process, orphans included,
//! and those whose variables name the folder of a job that lost its
//! supervisor.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

#[cfg(target_os = "linux")]
mod found {
    //! From /proc, which shows every process of this namespace.

    use std::collections::BTreeMap;
    use std::fs;
    use std::io;
    use std::path::Path;

    use rustix::process::{Pid, getpid};

    /// Makes this process the parent of all orphans among its descendants.
    pub fn adopt() -> io::Result<()> {
        Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
    }

    /// Returns the descendants that have not ended.
    pub fn living() -> Vec<Pid> {
        let mut parents = BTreeMap::new();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name();
            let number = name.to_str().and_then(|name| name.parse::<i32>().ok());
            let Some(number) = number else {
                continue;
            };
            let Ok(stat) = fs::read(process.path().join("stat")) else {
                continue;
            };
            if let Some((parent, alive)) = read(&stat) {
                parents.insert(number, (parent, alive));
            }
        }
        let me = getpid().as_raw_nonzero().get();
        let descends = |number: i32| {
            let mut at = number;
            // A parent has mostly, but not always, the smaller number.
            for _ in 0..=parents.len() {
                match parents.get(&at) {
                    Some((parent, _)) if *parent == me => return true,
                    Some((parent, _)) => at = *parent,
                    None => return false,
                }
            }
            false
        };
        let living = parents.iter().filter(|(_, (_, alive))| *alive);
        living
            .filter(|(number, _)| descends(**number))
            .filter_map(|(number, _)| Pid::from_raw(*number))
            .collect()
    }

    /// Returns the processes one of whose variables names a file below a folder.
    /// (What they set later is not seen, nor what other users run.)
    pub fn marked(folder: &Path) -> Vec<Pid> {
        let mut mark = vec![b'='];
        mark.extend(folder.as_os_str().as_encoded_bytes());
        mark.push(b'/');
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let marked = processes.filter_map(|process| {
            let number = process.file_name().to_str()?.parse::<i32>().ok()?;
            let variables = fs::read(process.path().join("environ")).ok()?;
            let mut variables = variables.split(|byte| *byte == 0);
            let found = variables.any(|variable| {
                let value = variable.iter().position(|byte| *byte == b'=');
                value.is_some_and(|at| variable[at..].starts_with(&mark))
            });
            Pid::from_raw(number).filter(|pid| found && *pid != getpid())
        });
        marked.collect()
    }

    /// Reads the parent, and whether it lives, from what proc_pid_stat(5) describes.
    fn read(stat: &[u8]) -> Option<(i32, bool)> {
        let name_end = stat.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?);
        Some((parent.parse().ok()?, !matches!(state, "Z" | "X")))
    }

    #[cfg(test)]
    mod tests {
        use rustix::process::Signal;

        use super::*;

        #[test]
        fn a_name_may_hold_anything() {
            assert_eq!(read(b"7 (a) Z 1 (b)) S 12 7 7"), Some((12, true)));
            assert_eq!(read(b"7 (a) Z 12 7 7"), Some((12, false)));
            assert_eq!(read(b"7"), None);
        }

        #[test]
        fn a_process_is_known_by_the_folder_it_was_given() {
            let folder = tempfile::tempdir().expect("a folder");
            let start = |tmp: &str| {
                let mut command = std::process::Command::new("sleep");
                let tmp = folder.path().join(tmp);
                command
                    .arg("1000")
                    .env("TMPDIR", tmp)
                    .spawn()
                    .expect("sleep runs")
            };
            let (mut mine, mut other) = (start("job-1/tmp"), start("job-10/tmp"));
            let marked = || marked(&folder.path().join("job-1"));
            let pid = Pid::from_child(&mine);
            // It is known from the moment it runs what it was told to.
            while marked().is_empty() {
                std::thread::yield_now();
            }
            assert_eq!(marked(), [pid]);
            super::super::end_marked(&folder.path().join("job-1"));
            let status = mine.wait().expect("it ended");
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            assert_eq!(signal, Some(Signal::KILL.as_raw()));
            assert!(matches!(other.try_wait(), Ok(None)));
            other.kill().expect("it runs");
            other.wait().expect("it ended");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod found {
    //! Elsewhere orphans cannot be adopted: only what stays in the process
    //! groups of the commands is found.

    use std::io;
    use std::path::Path;

    use rustix::process::Pid;

    pub fn adopt() -> io::Result<()> {
        Ok(())
    }

    pub fn marked(_: &Path) -> Vec<Pid> {
        Vec::new()
    }

    pub fn living() -> Vec<Pid> {
        let me = rustix::process::getpid();
        let listed = std::process::Command::new("ps")
            .args(["-A", "-o", "pid=,ppid=,stat="])
            .output();
        let text = listed.map(|listed| listed.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut found = Vec::new();
        let mut known = vec![me.as_raw_nonzero().get()];
        // Children of those known, until there are no more.
        loop {
            let before = known.len();
            for line in text.lines() {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let [pid, parent, state] = fields[..] else {
                    continue;
                };
                let (Ok(pid), Ok(parent)) = (pid.parse::<i32>(), parent.parse::<i32>()) else {
                    continue;
                };
                if known.contains(&parent) && !known.contains(&pid) {
                    known.push(pid);
                    if !state.starts_with('Z') {
                        found.extend(Pid::from_raw(pid));
                    }
                }
            }
            if known.len() == before {
                return found;
            }
        }
    }
}

pub(super) fn adopt() -> io::Result<()> {
    found::adopt()
}

/// Tells whether a descendant has not ended yet.
pub(super) fn lives() -> bool {
    !found::living().is_empty()
}

/// Sends a signal to every descendant.
pub(super) fn signal(signal: Signal) {
    for process in found::living() {
        let _ = rustix::process::kill_process(process, signal);
        if signal != Signal::KILL {
            // One that is stopped would not hear of it.
            let _ = rustix::process::kill_process(process, Signal::CONT);
        }
    }
}

/// Kills what is known of a job by its variables only, for as long as there is
/// more of it, but a second at most.
pub(super) fn end_marked(folder: &Path) {
    for _ in 0..100 {
        let marked = found::marked(folder);
        if marked.is_empty() {
            return;
        }
        for process in marked {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
