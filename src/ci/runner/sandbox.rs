//! Where what nobody trusts is run: namespaces of its own, in which there are
//! only the system's programs (read-only) and the folder of the job.
//!
//! ```text
//! /usr /bin /lib …   the machine's, read-only
//! /etc               a few files programs cannot do without
//! /checkout /home /tmp /run
//!                    the job's
//! /dev /proc         new ones: no device of the machine, no process of it
//! ```
//!
//! `unshare` makes the namespaces, and runs the supervisor in them; the
//! supervisor has the rights to build this ([`enter`]), and gives them up
//! before it runs a command. Where the engine is root, commands run as
//! nobody; otherwise in a user namespace, without any capability.

/// Where the checkout is in the sandbox.
pub(super) const CHECKOUT: &str = "/checkout";
/// HOME there.
pub(super) const HOME: &str = "/home";
/// The folder of the script there.
pub(super) const RUN: &str = "/run";
/// PATH there.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Who runs commands where the engine is root: nobody.
pub(super) const NOBODY: u32 = 65_534;

/// Returns what puts a command into namespaces of its own.
pub(super) fn unshare(root: bool) -> Vec<&'static str> {
    let mut words = vec![
        "unshare",
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
    ];
    if !root {
        words.extend(["--user", "--map-root-user"]);
    }
    words
}

#[cfg(not(target_os = "linux"))]
pub(super) fn enter() -> Result<(), String> {
    Err("there is no sandbox on this system".into())
}

#[cfg(target_os = "linux")]
pub(super) use linux::enter;

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt as _, symlink};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use rustix::fs::StatVfsMountFlags;
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
    use rustix::process::DumpableBehavior;
    use rustix::thread::{CapabilitySet, CapabilitySets};

    /// The system's programs.
    const SYSTEM: &[&str] = &[
        "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix",
    ];

    /// What programs cannot do without, and says nothing of this machine.
    const ETC: &[&str] = &[
        "alternatives",
        "ca-certificates",
        "ld.so.cache",
        "ld.so.conf",
        "ld.so.conf.d",
        "localtime",
        "magic",
        "mime.types",
        "perl",
        "pki/tls/certs",
        "ssl/certs",
        "ssl/openssl.cnf",
    ];

    const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

    const PASSWD: &str = "root:x:0:0:root:/home:/bin/sh\n\
                          nobody:x:65534:65534:nobody:/home:/bin/sh\n";

    /// Builds the sandbox around this process, in the folder of the job, which
    /// is the current one. The namespaces are there already.
    pub(in crate::ci::runner) fn enter() -> Result<(), String> {
        build().map_err(|error| format!("cannot make a sandbox on this machine: {error}"))
    }

    fn build() -> io::Result<()> {
        // Only its own: that of the machine keeps its name.
        rustix::system::sethostname(b"sandbox")?;
        let change = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        named("/", rustix::mount::mount_change("/", change))?;
        loopback();
        let job = std::env::current_dir()?;
        let root = job.join("root");
        fs::DirBuilder::new().mode(0o755).create(&root)?;
        mount_new(
            "tmpfs",
            &root,
            MountFlags::NOSUID | MountFlags::NODEV,
            "mode=0755",
        )?;
        for name in SYSTEM {
            system(&Path::new("/").join(name), &root.join(name))?;
        }
        for name in ETC {
            system(&Path::new("/etc").join(name), &root.join("etc").join(name))?;
        }
        fs::write(root.join("etc/passwd"), PASSWD)?;
        fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        fs::write(
            root.join("etc/hosts"),
            "127.0.0.1 localhost sandbox\n::1 localhost\n",
        )?;
        seal(&root)?;
        for (from, to) in [
            ("tree", "checkout"),
            ("home", "home"),
            ("tmp", "tmp"),
            ("run", "run"),
        ] {
            let to = root.join(to);
            fs::create_dir(&to)?;
            // As it is named from the current folder: whoever may not come
            // here from the root may do so from there.
            named(from, rustix::mount::mount_bind(from, &to))?;
            remount(&to, MountFlags::NOSUID | MountFlags::NODEV)?;
        }
        remount(
            &root.join("run"),
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY,
        )?;
        fs::create_dir(root.join("var"))?;
        symlink("/tmp", root.join("var/tmp"))?;
        devices(&root.join("dev"))?;
        let proc = root.join("proc");
        fs::create_dir(&proc)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount_new("proc", &proc, flags, "")?;
        rustix::process::chdir(&root)?;
        named("the new root", rustix::process::pivot_root(".", "."))?;
        named(
            "the old root",
            rustix::mount::unmount(".", UnmountFlags::DETACH),
        )?;
        rustix::process::chdir("/")?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
        remount(Path::new("/"), flags)?;
        give_up_rights()
    }

    fn named(what: &str, result: rustix::io::Result<()>) -> io::Result<()> {
        result.map_err(|error| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("cannot mount {what}: {error}"))
        })
    }

    fn mount_new(kind: &str, to: &Path, flags: MountFlags, data: &str) -> io::Result<()> {
        let data = std::ffi::CString::new(data).map_err(io::Error::other)?;
        named(
            kind,
            rustix::mount::mount(kind, to, kind, flags, Some(data.as_c_str())),
        )
    }

    /// Changes the flags of one mount, but keeps those that may not be taken away.
    fn remount(at: &Path, flags: MountFlags) -> io::Result<()> {
        let now = rustix::fs::statvfs(at)?.f_flag;
        let mut flags = flags | MountFlags::BIND;
        for (held, flag) in [
            (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
            (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
            (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
            (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
            (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        ] {
            if now.contains(held) {
                flags |= flag;
            }
        }
        let shown = at.display().to_string();
        named(&shown, rustix::mount::mount_remount(at, flags, ""))
    }

    /// Shows something of the machine, where it is there.
    fn system(from: &Path, to: &Path) -> io::Result<()> {
        let Ok(stat) = fs::symlink_metadata(from) else {
            return Ok(());
        };
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        if stat.is_symlink() {
            return symlink(fs::read_link(from)?, to);
        }
        if stat.is_dir() {
            fs::create_dir(to)?;
        } else {
            File::create(to)?;
        }
        let shown = from.display().to_string();
        named(&shown, rustix::mount::mount_bind_recursive(from, to))
    }

    /// Makes all that is mounted below a folder read-only.
    fn seal(root: &Path) -> io::Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            // proc_pid_mountinfo(5): the fifth field, blanks as \040.
            let Some(point) = line.split(' ').nth(4) else {
                continue;
            };
            let point = PathBuf::from(unescaped(point));
            if point != root && point.starts_with(root) {
                remount(&point, flags)?;
            }
        }
        Ok(())
    }

    fn unescaped(text: &str) -> std::ffi::OsString {
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let octal = after.get(..3).and_then(|digits| {
                let digits = std::str::from_utf8(digits).ok()?;
                u8::from_str_radix(digits, 8).ok()
            });
            match octal {
                Some(byte) if *first == b'\\' => {
                    out.push(byte);
                    rest = &after[3..];
                }
                _ => {
                    out.push(*first);
                    rest = after;
                }
            }
        }
        std::os::unix::ffi::OsStringExt::from_vec(out)
    }

    fn devices(dev: &Path) -> io::Result<()> {
        fs::create_dir(dev)?;
        for name in DEVICES {
            let to = dev.join(name);
            File::create(&to)?;
            let from = Path::new("/dev").join(name);
            named(name, rustix::mount::mount_bind(&from, &to))?;
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            symlink(target, dev.join(name))?;
        }
        let shm = dev.join("shm");
        fs::create_dir(&shm)?;
        mount_new(
            "tmpfs",
            &shm,
            MountFlags::NOSUID | MountFlags::NODEV,
            "mode=1777",
        )
    }

    /// Lets programs speak to themselves over 127.0.0.1, where `ip` is there.
    fn loopback() {
        let _ = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .env("PATH", super::PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }

    /// Gives up for ever what a command is not to have.
    fn give_up_rights() -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        for capability in CapabilitySet::all().iter() {
            // Those a kernel does not know it does not give either.
            let _ = rustix::thread::remove_capability_from_bounding_set(capability);
        }
        rustix::thread::clear_ambient_capability_set()?;
        let mut held = rustix::thread::capabilities(None)?;
        // To become nobody, and to end what nobody runs.
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL;
        held = CapabilitySets {
            effective: held.effective & needed,
            permitted: held.permitted & needed,
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, held)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        Ok(())
    }
}
