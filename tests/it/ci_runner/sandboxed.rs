//! What nobody trusts sees nothing of this machine but its programs.

use super::*;

/// Tells, with the reason, where this machine has no sandbox.
fn possible(ended: &Ended) -> bool {
    let text = shown(ended);
    let forbidden = text.contains("this machine does not allow one");
    if forbidden {
        println!("skipped: {text}");
    }
    !forbidden
}

async fn sandboxed(world: &World, script: &str) -> Job {
    let mut job = world
        .job(
            script,
            &[("src/a", "x"), ("run.sh*", "#!/bin/sh\necho ran\n")],
        )
        .await;
    job.sandbox = true;
    job
}

#[tokio::test]
async fn it_sees_its_checkout_and_the_systems_programs() {
    let mut world = World::new();
    world.options.env.push(("ENGINES_OWN".into(), "x".into()));
    let secret = world.file("secret");
    std::fs::write(&secret, "x").unwrap();
    let script = format!(
        "pwd; ./run.sh; ls /; ls {} {} 2>/dev/null || true; env | cut -d= -f1 | sort; \
         cat /proc/1/environ 2>/dev/null || true; ls -d /proc/[0-9]* | wc -l; hostname; echo made > out; \
         echo x > /usr/x 2>/dev/null || echo read-only; echo x > /x 2>/dev/null || echo read-only; \
         grep ^CapEff /proc/self/status; ls /sys/class/net 2>/dev/null || true; cat /etc/shadow 2>/dev/null || true; \
         echo > /tmp/t && echo > $HOME/h && echo home",
        secret.display(),
        std::env::current_exe().unwrap().display(),
    );
    let mut job = sandboxed(&world, &script).await;
    job.outputs = vec![path("out")];
    let (ended, log) = world.run(job.clone()).await;
    if !possible(&ended) {
        return;
    }
    assert_eq!(shown(&ended), "success: Success", "{log}");
    let lines: Vec<&str> = log.lines().skip(1).collect();
    assert_eq!(lines[..2], ["/checkout", "ran"], "{log}");
    assert!(
        !log.contains("ENGINES_OWN") && !log.contains("secret\n"),
        "{log}"
    );
    assert!(lines.contains(&"sandbox"), "{log}");
    assert!(
        lines.iter().filter(|line| **line == "read-only").count() == 2,
        "{log}"
    );
    assert!(log.contains("CapEff:\t0000000000000000\n"), "{log}");
    assert!(log.ends_with("home\n"), "{log}");
    // The supervisor, the shell, and what counts them.
    assert!(
        lines.iter().any(|line| ["3", "4", "5"].contains(line)),
        "{log}"
    );
    let (made, _) = world.made(job).await;
    assert_eq!(made, ["file value/out made"]);
}

#[tokio::test]
async fn it_has_no_network_and_is_nobody_here() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "id -u; bash -c 'echo > /dev/tcp/127.0.0.1/{port}' 2>/dev/null || echo alone; \
         kill -9 1 2>/dev/null || true; echo alive; \
         unshare --mount true 2>/dev/null || echo bounded"
    );
    let (ended, log) = world.run(sandboxed(&world, &script).await).await;
    if !possible(&ended) {
        return;
    }
    assert_eq!(shown(&ended), "success: Success", "{log}");
    let lines: Vec<&str> = log.lines().skip(1).collect();
    let root = rustix::process::geteuid().is_root();
    assert_eq!(lines[0], if root { "65534" } else { "0" }, "{log}");
    assert_eq!(lines[1..], ["alone", "alive", "bounded"], "{log}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody came");
}

#[tokio::test]
async fn nothing_of_it_is_left() {
    let world = World::new();
    let script = "setsid sh -c 'setsid sh -c \"trap : TERM; exec 9>/tmp/lock; flock 9; \
                  echo > /tmp/ready; while :; do sleep 1; done\" &' & \
                  while ! [ -e /tmp/ready ]; do sleep 0.01; done; echo ready; sleep 1000";
    let mut job = sandboxed(&world, script).await;
    job.timeout = Duration::from_secs(3);
    let (ended, log) = world.run(job).await;
    if !possible(&ended) {
        return;
    }
    assert_eq!(
        shown(&ended),
        "timed out: Exceeded timeout of 3.00 seconds",
        "{log}"
    );
    assert!(log.contains("ready\n"), "{log}");
    let left = std::fs::read_dir(&world.options.scratch).unwrap().count();
    assert_eq!(left, 0, "its folder could be removed");
}

#[tokio::test]
async fn where_there_is_no_sandbox_it_does_not_run() {
    let mut world = World::new();
    world.only(&["sh"], &[]);
    let (ended, log) = world.run(sandboxed(&world, "echo ran").await).await;
    assert_eq!(
        shown(&ended),
        "failure: what is not trusted can only run in a sandbox of namespaces, and this machine \
         does not allow one: cannot run unshare: No such file or directory (os error 2) (None)"
    );
    assert_eq!(log, "");
    let mut world = World::new();
    let refusing =
        "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n";
    world.only(&["sh"], &[("unshare", refusing)]);
    let (ended, _) = world.run(sandboxed(&world, "echo ran").await).await;
    assert_eq!(
        shown(&ended),
        "failure: what is not trusted can only run in a sandbox of namespaces, and this machine \
         does not allow one: unshare: unshare failed: Operation not permitted (None)"
    );
}
