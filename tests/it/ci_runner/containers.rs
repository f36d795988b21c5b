//! Steps in containers: a program that speaks docker's command line stands in
//! for docker.

use super::*;

/// What the runner uses of docker: it runs commands here, in the folder that
/// is mounted as the checkout, and writes down what it is asked.
const DOCKER: &str = r#"#!/bin/bash
here=$(dirname "$(readlink -f "$0")")
echo "$@" >> "$here/asked"
case $1 in
version) echo 27.0 ;;
image) [ "${*: -1}" = debian:12 ] && echo sha256:abc ;;
rm) echo "${*: -1}" | tee -a "$here/removed" ;;
run)
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        --rm) shift ;;
        --volume)
            from=${2%%:*} to=${2#*:} to=${to%:ro}
            [ "$to" = /checkout ] && tree=$from
            [ "$to" = /ci/run ] && run=$from
            shift 2 ;;
        --name | --workdir | --env | --entrypoint | --network | --cap-drop | --security-opt | --user)
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
    "sh", "bash", "cat", "dirname", "readlink", "sleep", "env", "tee",
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
        asked.contains(" --env KEY ") && asked.contains(" --env LEVEL "),
        "{asked}"
    );
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
    assert_eq!(machine.image("debian:12").await, "sha256:abc");
    assert_eq!(machine.image("debian:12").await, "sha256:abc");
    assert_eq!(machine.image("unknown").await, "unknown");
    let inspected = asked(&world).matches("debian:12").count();
    assert_eq!(inspected, 1, "it is not asked again and again");
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
