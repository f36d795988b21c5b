//! Steps in containers: a program that speaks docker's command line stands in
//! for docker.

use super::*;

/// What the runner uses of docker: it runs commands here, in the folder that
/// is mounted as the checkout, and writes down what it is asked.
pub const DOCKER: &str = r#"#!/bin/bash
here=$(dirname "$(readlink -f "$0")")
echo "$@" >> "$here/asked"
case $1 in
--version) echo "Docker version 27.0" ;;
version) echo 27.0 ;;
info) echo "[name=seccomp,profile=builtin name=cgroupns]" ;;
pull) [ "${*: -1}" = debian:13 ] && echo > "$here/pulled" ;;
image)
    case ${*: -1} in
    debian:12) echo sha256:abc ;;
    debian:13) [ -e "$here/pulled" ] && echo sha256:def ;;
    *) false ;;
    esac ;;
rm) echo "${*: -1}" | tee -a "$here/removed" ;;
run)
    shift
    env > "$here/variables"
    while [ $# -gt 0 ]; do
        case $1 in
        --rm) shift ;;
        --volume)
            IFS=: read -r from to _ <<< "$2"
            [ "$to" = /checkout ] && tree=$from
            [ "$to" = /ci/run ] && run=$from
            shift 2 ;;
        --env)
            case $2 in
            HOME=* | TMPDIR=*) ;;
            *=*) export "$2" ;;
            esac
            shift 2 ;;
        --name | --label | --workdir | --entrypoint | --network | --cap-drop | --security-opt | --user | --userns)
            shift 2 ;;
        *) break ;;
        esac
    done
    echo "in $1"; shift
    cd "$tree" || exit 125
    "${@/#\/ci\/run/$run}"
    ;;
esac
"#;

const PROGRAMS: &[&str] = &[
    "sh", "bash", "cat", "cut", "dirname", "readlink", "sleep", "env", "tee",
];

fn asked(world: &World) -> String {
    std::fs::read_to_string(world.file("bin/asked")).unwrap()
}

#[tokio::test]
async fn a_step_runs_in_its_image_with_the_checkout_mounted() {
    let mut world = World::new();
    world.only(PROGRAMS, &[("docker", DOCKER)]);
    let mut job = world
        .job("cat a; echo $KEY $LEVEL; echo b > b", &[("a", "x\n")])
        .await;
    job.image = Some("debian:12".into());
    job.env.insert("LEVEL".into(), "3".into());
    job.secrets.push(Secret {
        name: "KEY".into(),
        value: b"s3cr3t-key".to_vec(),
    });
    job.outputs = vec![path("b")];
    let (made, log) = world.made(job).await;
    assert_eq!(made, ["file value/b b"]);
    assert!(log.ends_with("in debian:12\nx\n*** 3\n"), "{log}");
    let asked = asked(&world);
    assert!(
        asked.contains(" --env KEY ") && asked.contains(" --env LEVEL=3 "),
        "{asked}"
    );
    // What a step says is no business of the program that is run here.
    let variables = std::fs::read_to_string(world.file("bin/variables")).unwrap();
    assert!(variables.contains("KEY=s3cr3t-key\n"), "{variables}");
    assert!(!variables.contains("LEVEL="), "{variables}");
    assert!(!asked.contains("s3cr3t"), "{asked}");
    let removed = std::fs::read_to_string(world.file("bin/removed")).unwrap();
    assert!(removed.starts_with("dk-ci-job-"), "{removed}");
    assert!(
        asked.contains(&format!("--name {} ", removed.trim())),
        "{asked}"
    );
}

#[tokio::test]
async fn an_image_stands_for_its_digest() {
    let mut world = World::new();
    world.only(PROGRAMS, &[("docker", DOCKER)]);
    let machine = world.machine();
    let ask = async |name: &str| machine.image(name, Box::new(|| ())).await;
    for _ in 0..2 {
        assert_eq!(ask("debian:12").await.as_deref(), Some("sha256:abc"));
    }
    let inspected = asked(&world).matches("debian:12").count();
    assert_eq!(inspected, 1, "it is not asked again and again");
    // One that is not here is fetched first: nothing is run twice because its
    // image got a digest meanwhile.
    for (name, digest) in [("debian:13", "sha256:def"), ("unknown", "unknown")] {
        let there = Arc::new(Notify::new());
        let done = {
            let there = Arc::clone(&there);
            move || there.notify_one()
        };
        assert_eq!(machine.image(name, Box::new(done)).await, None);
        there.notified().await;
        assert_eq!(ask(name).await.as_deref(), Some(digest));
        let pulls = asked(&world)
            .matches(&format!("pull --quiet {name}"))
            .count();
        assert_eq!(pulls, 1);
    }
}

#[tokio::test]
async fn who_root_is_in_a_container_is_asked() {
    // podman goes by docker's name, too.
    let rootless = DOCKER
        .replace("Docker version 27.0", "podman version 5.0")
        .replace("[name=seccomp,profile=builtin name=cgroupns]", "true");
    let remapped = DOCKER.replace("name=cgroupns", "name=userns");
    for (docker, about, wanted) in [
        (rootless.as_str(), "{{.Host.Security.Rootless}}", None),
        (&remapped, "{{.SecurityOptions}}", Some(" --userns host ")),
    ] {
        let mut world = World::new();
        world.only(PROGRAMS, &[("docker", docker)]);
        let mut job = world.job("true", &[("a", "x")]).await;
        job.image = Some("debian:12".into());
        let (ended, log) = world.run(job).await;
        assert_eq!(shown(&ended), "success: Success", "{log}");
        let asked = asked(&world);
        assert!(
            asked.contains(&format!("info --format {about}\n")),
            "{asked}"
        );
        assert_eq!(asked.contains("--userns"), wanted.is_some(), "{asked}");
        assert!(asked.contains(wanted.unwrap_or_default()), "{asked}");
    }
}

#[tokio::test]
async fn a_container_is_removed_when_its_step_is_cancelled() {
    let mut world = World::new();
    world.only(PROGRAMS, &[("podman", DOCKER)]);
    let mut job = world.job("echo ready; sleep 1000", &[("a", "x")]).await;
    job.image = Some("debian:12".into());
    job.sandbox = true;
    let (stopper, stop) = Stopper::new();
    let log = Arc::new(Log::default());
    let run = world.run_with(job, &log, stop);
    let cancel = async {
        log.says("ready\n").await;
        stopper.stop();
    };
    let (ended, ()) = tokio::join!(run, cancel);
    assert_eq!(shown(&ended), "cancelled");
    assert!(world.file("bin/removed").exists());
    let asked = asked(&world);
    let limits = "--network none --cap-drop ALL --security-opt no-new-privileges";
    assert!(asked.contains(limits), "{asked}");
}

#[tokio::test]
async fn a_container_is_removed_when_its_time_is_over() {
    let mut world = World::new();
    world.only(PROGRAMS, &[("docker", DOCKER)]);
    let mut job = world.job("sleep 1000", &[("a", "x")]).await;
    job.image = Some("debian:12".into());
    job.timeout = Duration::from_secs(1);
    let (ended, _) = world.run(job).await;
    assert_eq!(shown(&ended), "timed out: Exceeded timeout of 1.00 seconds");
    assert!(world.file("bin/removed").exists());
}

#[tokio::test]
async fn a_container_is_removed_when_its_supervisor_was_killed() {
    let mut world = World::new();
    world.only(PROGRAMS, &[("docker", DOCKER)]);
    // The parent of what stands in for docker.
    let script = "kill -9 $(cut -d' ' -f4 /proc/$PPID/stat); sleep 1000";
    let mut job = world.job(script, &[("a", "x")]).await;
    job.image = Some("debian:12".into());
    let (ended, _) = world.run(job).await;
    assert_eq!(
        shown(&ended),
        "failure: the supervisor of the step is gone (None)"
    );
    assert!(world.file("bin/removed").exists());
}

#[tokio::test]
async fn a_container_that_a_killed_engine_left_is_removed_by_the_next() {
    let mut world = World::new();
    world.only(PROGRAMS, &[("docker", DOCKER)]);
    let left = world.options.scratch.join("job-left");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("lock"), "").unwrap();
    let docker = world.file("bin/docker");
    let words = ["rm", "--force", "--volumes", "dk-ci-job-left"];
    let words: Vec<&str> = [docker.to_str().unwrap()]
        .into_iter()
        .chain(words)
        .collect();
    std::fs::write(left.join("container"), serde_json::to_vec(&words).unwrap()).unwrap();
    let _machine = world.machine();
    assert_eq!(asked(&world), "rm --force --volumes dk-ci-job-left\n");
    assert!(!left.exists());
}

#[tokio::test]
async fn without_an_engine_the_reason_is_told() {
    let mut world = World::new();
    world.only(&["sh"], &[]);
    let mut job = world.job("true", &[("a", "x")]).await;
    job.image = Some("debian:12".into());
    let (ended, _) = world.run(job.clone()).await;
    assert_eq!(
        shown(&ended),
        "failure: cannot run in the image debian:12: neither docker nor podman is on this machine \
         (None)"
    );
    let client = "#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n";
    let mut world = World::new();
    world.only(&["sh"], &[("docker", client)]);
    let (ended, _) = world.run(job).await;
    assert_eq!(
        shown(&ended),
        "failure: cannot run in the image debian:12: no container engine answers (docker: Cannot \
         connect to the Docker daemon) (None)"
    );
}
