//! Every process of a job ends with it.

use super::*;

/// Starts a daemon as daemons are started, twice forked and in a session of
/// its own, deaf to TERM, with the lock `$LOCK`.
const DAEMON: &str = "setsid sh -c 'setsid sh -c \"
    trap : TERM HUP INT
    exec 9>\\$LOCK
    flock 9
    echo locked >\\$LOCK.ready
    while :; do sleep 1; done
\" & ' &
while ! [ -s $LOCK.ready ]; do sleep 0.01; done
echo ready
";

async fn daemon(world: &World, then: &str) -> (Job, PathBuf) {
    let lock = world.file("lock");
    let mut job = world.job(&format!("{DAEMON}{then}"), &[("a", "x")]).await;
    job.env
        .insert("LOCK".into(), lock.to_str().unwrap().to_owned());
    (job, lock)
}

/// Both ways of keeping hold of processes: a namespace where this machine
/// allows one (to root), and the adoption of orphans.
fn worlds() -> Vec<World> {
    let mut adopting = World::new();
    adopting.only(&["sh", "sleep", "setsid", "flock", "cat", "env"], &[]);
    let namespaced = rustix::process::geteuid().is_root().then(World::new);
    namespaced.into_iter().chain([adopting]).collect()
}

#[tokio::test]
async fn a_daemon_does_not_survive_a_time_out() {
    for world in worlds() {
        let (mut job, lock) = daemon(&world, "while :; do sleep 1; done").await;
        job.timeout = Duration::from_secs(3);
        let (ended, log) = world.run(job).await;
        assert_eq!(
            shown(&ended),
            "timed out: Exceeded timeout of 3.00 seconds",
            "{log}"
        );
        assert!(log.contains("ready\n"), "{log}");
        assert!(
            log.contains("[time] Exceeded timeout of 3.00 seconds\n"),
            "{log}"
        );
        assert!(is_free(&lock), "nothing outlives the answer");
    }
}

#[tokio::test]
async fn a_daemon_does_not_survive_a_cancel() {
    for world in worlds() {
        let (job, lock) = daemon(&world, "while :; do sleep 1; done").await;
        let (stopper, stop) = Stopper::new();
        let log = Arc::new(Log::default());
        let run = world.run_with(job, &log, stop);
        let cancel = async {
            log.says("ready\n").await;
            assert!(!is_free(&lock));
            stopper.stop();
        };
        let (ended, ()) = tokio::join!(run, cancel);
        assert_eq!(shown(&ended), "cancelled");
        assert!(is_free(&lock), "nothing outlives the answer");
    }
}

#[tokio::test]
async fn a_daemon_does_not_survive_its_step() {
    for world in worlds() {
        let (job, lock) = daemon(&world, "echo done").await;
        let (ended, log) = world.run(job).await;
        assert_eq!(shown(&ended), "success: Success", "{log}");
        assert!(is_free(&lock), "nothing outlives the answer");
    }
}

#[tokio::test]
async fn a_daemon_does_not_survive_its_supervisor() {
    for world in worlds() {
        // Process 1 of a namespace cannot be killed from inside of it.
        let (job, lock) = daemon(&world, "kill -9 $PPID; echo still here").await;
        let (ended, log) = world.run(job).await;
        let gone = "failure: the supervisor of the step is gone (None)";
        let ended = shown(&ended);
        assert!(
            ended == gone || log.contains("still here"),
            "{ended}: {log}"
        );
        assert!(is_free(&lock), "nothing outlives the answer");
    }
}

#[tokio::test]
async fn whoever_listens_to_term_may_say_goodbye() {
    for mut world in worlds() {
        world.options.grace = Duration::from_secs(30);
        let script = "trap 'echo goodbye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
        let job = world.job(script, &[("a", "x")]).await;
        let (stopper, stop) = Stopper::new();
        let log = Arc::new(Log::default());
        let run = world.run_with(job, &log, stop);
        let cancel = async {
            log.says("ready\n").await;
            stopper.stop();
        };
        let (ended, ()) = tokio::join!(run, cancel);
        assert_eq!(shown(&ended), "cancelled");
        assert!(log.text().ends_with("goodbye\n"), "{}", log.text());
    }
}

#[tokio::test]
async fn processes_end_also_when_nobody_waits_for_the_job() {
    for world in worlds() {
        let (job, lock) = daemon(&world, "while :; do sleep 1; done").await;
        let (_stopper, stop) = Stopper::new();
        let log = Arc::new(Log::default());
        let dropped = async {
            tokio::select! {
                _ = world.run_with(job, &log, stop) => panic!("it does not end by itself"),
                () = log.says("ready\n") => (),
            }
        };
        dropped.await;
        crate::sandbox::eventually("the end of the daemon", || is_free(&lock).then_some(()));
    }
}

#[tokio::test]
async fn a_job_that_was_stopped_before_it_began_does_not_begin() {
    let world = World::new();
    let job = world.job("echo no", &[("a", "x")]).await;
    let (stopper, stop) = Stopper::new();
    drop(stopper);
    let log = Arc::new(Log::default());
    let ended = world.run_with(job, &log, stop).await;
    assert_eq!(shown(&ended), "cancelled");
    assert_eq!(log.text(), "");
}

#[tokio::test]
async fn a_lot_of_output_arrives_whole() {
    let world = World::new();
    let job = world.job("seq 1 200000", &[("a", "x")]).await;
    let (ended, log) = world.run(job).await;
    assert_eq!(shown(&ended), "success: Success");
    let lines: Vec<&str> = log.lines().skip(1).collect();
    assert_eq!(lines.len(), 200_000);
    assert_eq!(lines[199_999], "200000");
}
