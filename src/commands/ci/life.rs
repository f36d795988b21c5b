//! Who this engine is, and whether another one on this machine still runs.

use std::sync::Arc;

use crate::ci::layout::Lease;
use crate::ci::lease::Holder;

/// Returns this process as the holder of a lease.
pub(super) fn holder() -> Holder {
    let name = rustix::system::uname();
    Holder {
        host: name.nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        life: life(std::process::id()).unwrap_or_default(),
        runs: Arc::new(runs),
    }
}

/// Tells whether the holder of a lease of this machine runs, where that can be
/// known.
fn runs(lease: &Lease) -> Option<bool> {
    // As `life` has it: boot, namespace, start.
    let mut parts = lease.life.split(' ');
    let own = life(std::process::id())?;
    let mut own = own.split(' ');
    if parts.next() != own.next() {
        // The machine was started anew since.
        return Some(false);
    }
    if parts.next() != own.next() {
        // Its number means another process here.
        return None;
    }
    Some(life(lease.pid).is_some_and(|life| life == lease.life))
}

/// Returns what tells one run of a process from any other: the boot, the
/// namespace its number is of, and its start. Nothing where there is no such
/// process, or nobody can tell.
#[cfg(target_os = "linux")]
fn life(pid: u32) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; 19 fields on is the start.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    if fields.next() == Some("Z") {
        return None;
    }
    let start = fields.nth(18)?;
    let namespace = namespace.display().to_string().replace(' ', "");
    Some(format!("{} {namespace} {start}", boot.trim()))
}

#[cfg(not(target_os = "linux"))]
fn life(_: u32) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(pid: u32, life: String) -> Lease {
        Lease {
            engine: String::new(),
            host: String::new(),
            pid,
            life,
            since: 0,
            renewed: 0,
            valid: 0,
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_runs_until_it_does_not() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("sleep runs");
        let pid = child.id();
        let held = lease(pid, life(pid).expect("it runs"));
        assert_eq!(runs(&held), Some(true));
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        assert_eq!(runs(&held), Some(false));
        let own = std::process::id();
        let other = lease(own, life(own).expect("this runs") + "0");
        assert_eq!(runs(&other), Some(false), "another had this number");
        let elsewhere = life(own).expect("this runs").replacen("pid:", "pid:1", 1);
        assert_eq!(runs(&lease(own, elsewhere)), None);
    }
}
