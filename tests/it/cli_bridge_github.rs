//! `dk bridge github` and `dk bridge status`, beside a GitHub in this process.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use datakit::forge::*;

use crate::bridge_github::world::{name, repo};
use crate::bridge_http::world::both_described;
use crate::github::{GitHub, events};
use crate::sandbox::{Sandbox, eventually, ids};

const TOKEN: &str = "ghp_not_to_be_shown";

/// A store, a GitHub, and a token for it.
async fn world() -> (Sandbox, GitHub) {
    let hub = GitHub::start().await;
    hub.world().is = both_described();
    hub.world().token = Some(TOKEN.into());
    let mut sandbox = Sandbox::with_store();
    sandbox.set("DK_GITHUB_TOKEN", TOKEN);
    (sandbox, hub)
}

fn arguments<'a>(hub: &'a GitHub, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = [
        "bridge",
        "github",
        "--api-url",
        &hub.url,
        "--spacing",
        "1ms",
    ];
    [&fixed[..], more].concat()
}

/// Runs `dk` where blocking is allowed, while GitHub answers.
fn dk(sandbox: &Sandbox, hub: &GitHub, more: &[&str]) -> String {
    tokio::task::block_in_place(|| sandbox.dk(arguments(hub, more)))
}

#[tokio::test(flavor = "multi_thread")]
async fn once_is_once() {
    let (sandbox, hub) = world().await;
    let first = dk(&sandbox, &hub, &["-r", "test/test", "--once"]);
    assert_eq!(ids(&first), "ID1\n");
    assert_eq!(
        dk(&sandbox, &hub, &["--once"]),
        "",
        "nothing new, nothing done"
    );
    let asked = hub.world().paid();
    assert_eq!(dk(&sandbox, &hub, &["--once"]), "");
    assert_eq!(hub.world().paid(), asked, "and nothing paid");
    let listed = sandbox.ok(["ls", "-r", "github-metadata:test/test/pr/1"]);
    insta::assert_snapshot!(listed, @r"
    base
    comments/0/body
    comments/0/id
    comments/0/user
    head
    head-repo
    owner
    state
    title
    ");
    let shown = sandbox.dk(["bridge", "status"]);
    let shown = shown.replace(|c: char| c.is_ascii_digit(), "N");
    insta::assert_snapshot!(shown, @r"
    bridge	not running here
    branch	github-metadata
    repositories	N
    last sync	NNNN-NN-NNTNN:NN:NNZ
    budget	NNNN of NNNN calls until NNNN-NN-NNTNN:NN:NNZ
    ");
    let json = sandbox.ok(["--json", "bridge", "status"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["budget"]["limit"], &json["running"]),
        (&5000.into(), &false.into())
    );
    // What fails is said, and is status 1; the token is not.
    hub.world()
        .broken
        .insert("test/test".into(), (403, "Resource not accessible"));
    sandbox.ok(["put", "github-metadata:test/test/.dirty", "/dev/null"]);
    let said = dk(&sandbox, &hub, &["--once"]);
    assert!(
        said.contains("Resource not accessible") && said.ends_with("exit status 1\n"),
        "{said}"
    );
    let shown = sandbox.dk(["bridge", "status"]);
    assert!(
        shown.contains("1, 1 with an error") && shown.contains("error\ttest/test\t"),
        "{shown}"
    );
    assert!(!said.contains(TOKEN) && !shown.contains(TOKEN));
    hub.assert_faithful();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_the_calls() {
    let (sandbox, hub) = world().await;
    dk(&sandbox, &hub, &["-r", "test/test", "--once"]);
    sandbox.ok_with("new", ["put", "github-metadata:test/test/pr/1/title"]);
    sandbox.ok_with(
        "success",
        [
            "put",
            "github-metadata:test/test/commit/foo/status/ci/state",
        ],
    );
    sandbox.ok_with(
        "foo",
        ["put", "github-metadata:test/test/ref/heads/mine/head"],
    );
    let before = sandbox.ok(["branch", "list", "-v"]);
    let caps = ["--dry-run", "-c", "*:rw,ref:rw"];
    insta::assert_snapshot!(dk(&sandbox, &hub, &caps), @r#"
    PATCH /repos/test/test/pulls/1 {"title":"new"}
    POST /repos/test/test/statuses/foo {"context":"ci","state":"success"}
    PATCH /repos/test/test/git/refs/heads/mine {"force":false,"sha":"foo"}
    "#);
    assert_eq!(sandbox.ok(["branch", "list", "-v"]), before);
    assert!(hub.world().changes().is_empty());
    // By default nothing is written at all.
    assert_eq!(dk(&sandbox, &hub, &["--dry-run"]), "");
    // A branch that is not born stays so.
    assert_eq!(
        dk(
            &sandbox,
            &hub,
            &["--dry-run", "-b", "other", "-r", "test/test"]
        ),
        ""
    );
    assert_eq!(sandbox.ok(["branch", "list", "-v"]), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_before_anything_is_done() {
    let (mut sandbox, hub) = world().await;
    for (wrong, why) in [
        (&["-r", "no repo"][..], "it should be USER/REPO or USER"),
        (&["-c", "pr:q"], "invalid operations"),
        (
            &["--webhook", "https://ci.example.org/"],
            "needs --tls-cert and --tls-key",
        ),
        (&["--listen", "nowhere"], "an address with a port"),
        (&["--resync-interval", "soon"], "not a time"),
        (&["--app-id", "7"], "--app-key"),
    ] {
        let said = dk(&sandbox, &hub, wrong);
        assert!(
            said.contains(why) && said.ends_with("exit status 2\n"),
            "{said}"
        );
    }
    sandbox.unset("DK_GITHUB_TOKEN");
    let said = dk(&sandbox, &hub, &["--once"]);
    assert!(
        said.contains("no token for GitHub") && said.ends_with("exit status 2\n"),
        "{said}"
    );
    sandbox.write("token", format!("{TOKEN}\n"));
    let said = dk(
        &sandbox,
        &hub,
        &["--once", "--token-file", "token", "-r", "test/test"],
    );
    assert_eq!(ids(&said), "ID1\n");
    assert_eq!(
        sandbox.ok(["branch", "list"]),
        "github-metadata\ngithub-metadata.sync"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_compose_file_runs_works() {
    let (sandbox, hub) = world().await;
    let text = std::fs::read_to_string("scripts/docker/ci.yml").unwrap();
    let words = text.lines().find_map(|line| {
        let list = line.strip_prefix("    command: ")?;
        let words: Vec<String> = serde_json::from_str(list).unwrap();
        (words[1] == "bridge").then_some(words)
    });
    sandbox.write("token", TOKEN);
    let words = words
        .unwrap()
        .into_iter()
        .skip(3)
        .map(|word| match word.as_str() {
            "/run/secrets/github-token" => "token".into(),
            "/state" => "state".into(),
            word if word.starts_with("${REPOSITORIES") => "test/test".into(),
            _ => word,
        });
    let words: Vec<String> = words.chain(["--once".into()]).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(ids(&dk(&sandbox, &hub, &words)), "ID1\n");
    let files = std::fs::read_dir("scripts/docker").unwrap();
    assert_eq!(files.count(), 2, "every file is looked at by a test");
}

#[cfg(feature = "https")]
#[tokio::test(flavor = "multi_thread")]
async fn webhooks_may_come_over_tls() {
    let (sandbox, hub) = world().await;
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    sandbox.write("cert.pem", made.cert.pem());
    sandbox.write("key.pem", made.signing_key.serialize_pem());
    let port = port();
    let listen = format!("127.0.0.1:{port}");
    let more = [
        "--listen",
        &listen,
        "--tls-cert",
        "cert.pem",
        "--tls-key",
        "key.pem",
    ];
    let mut bridge = Bridge(
        sandbox
            .command(arguments(&hub, &more))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut said = BufReader::new(bridge.0.stderr.take().unwrap()).lines();
    let said = tokio::task::block_in_place(|| said.next().unwrap().unwrap());
    assert_eq!(said, format!("dk: webhooks come in at {listen}"));
    datakit::tls::provide();
    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder();
    let client = client.tls_certs_only([trusted]).build().unwrap();
    let url = format!("https://localhost:{port}/test/test");
    let answer = client.post(url).body("{}").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 403);
    // Whoever does not speak it is not let in, and holds up nobody.
    let plain = reqwest::get(format!("http://{listen}/")).await;
    assert!(plain.is_err());
    // Files that are no certificate are named.
    let wrong = [
        "--listen",
        "127.0.0.1:0",
        "--tls-cert",
        "key.pem",
        "--tls-key",
        "key.pem",
        "--state-dir",
        "s",
    ];
    let said = dk(&sandbox, &hub, &wrong);
    assert!(said.contains("cannot use key.pem"), "{said}");
}

/// A bridge that runs.
struct Bridge(Child);

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_listens_counts_and_ends() {
    let (sandbox, hub) = world().await;
    let (hooks, counts) = (port(), format!("127.0.0.1:{}", port()));
    let (webhook, listen) = (
        format!("http://127.0.0.1:{hooks}/"),
        format!("127.0.0.1:{hooks}"),
    );
    let caps = ["-r", "test/test", "-c", "*:r,webhook:rw,status[ci]:x"];
    let more = [
        "--webhook",
        &webhook,
        "--listen",
        &listen,
        "--metrics",
        &counts,
        "--state-dir",
        "state",
    ];
    let all = [&caps[..], &more].concat();
    let mut bridge = Bridge(
        sandbox
            .command(arguments(&hub, &all))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(bridge.0.stdout.take().unwrap()).lines();
    let mut next = || tokio::task::block_in_place(|| lines.next().unwrap().unwrap());
    next();
    let secret = tokio::task::block_in_place(|| {
        eventually("the hook", || {
            hub.world()
                .hooks
                .values()
                .next()
                .map(|hook| hook.secret.clone())
        })
    });
    let file = sandbox.join("state/webhook-secret");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), secret);
    assert!(secret.starts_with("datakit:") && secret.len() == 48);
    for (path, mode) in [
        ("state", 0o700),
        ("state/webhook-secret", 0o600),
        ("state/status.json", 0o600),
    ] {
        let found = std::fs::metadata(sandbox.join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
    // From there to here, and from here to there.
    hub.world()
        .is
        .add_ref(&repo(), &name("heads/new"), "foo".into());
    hub.tell(events::push(&repo(), &name("heads/new"), Some("foo")))
        .await;
    let made = next();
    let read = |path: &str| tokio::task::block_in_place(|| sandbox.ok(["cat", path]));
    assert_eq!(read(&format!("{made}:test/test/ref/heads/new/head")), "foo");
    let path = "github-metadata:test/test/commit/foo/status/ci/state";
    tokio::task::block_in_place(|| sandbox.ok_with("success", ["put", path]));
    let key = (repo(), "foo".to_owned(), context("ci").unwrap());
    tokio::task::block_in_place(|| {
        eventually("the status", || hub.world().is.statuses.get(&key).cloned())
    });
    // One bridge is enough.
    let said = dk(&sandbox, &hub, &["--state-dir", "state"]);
    assert!(
        said.contains("another bridge works with state") && said.ends_with("exit status 2\n"),
        "{said}"
    );
    let shown =
        tokio::task::block_in_place(|| sandbox.dk(["bridge", "status", "--state-dir", "state"]));
    assert!(shown.starts_with("bridge\trunning\n"), "{shown}");
    let get = async |path: &str| {
        datakit::tls::provide();
        let answer = reqwest::get(format!("http://{counts}/{path}"))
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("healthz").await, (200, "ok\n".into()));
    let mut text = get("metrics").await.1;
    // The status is there before it is counted.
    while !text.contains("datakit_bridge_pushes_total 1") {
        text = get("metrics").await.1;
    }
    for counted in [
        "datakit_bridge_repositories 1",
        "datakit_bridge_deliveries_total{result=\"ok\"} ",
        "datakit_github_calls_total{result=\"ok\"} ",
    ] {
        assert!(text.contains(counted), "{counted}: {text}");
    }
    let pid = rustix::process::Pid::from_child(&bridge.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = tokio::task::block_in_place(|| bridge.0.wait().unwrap());
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(15)
    );
    let mut said = String::new();
    bridge
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(!said.contains(TOKEN) && !said.contains(&secret), "{said}");
    hub.assert_faithful();
}
