//! The command line of `dk serve`: which store, which options, which words.

use insta::assert_snapshot;

use crate::sandbox::Sandbox;
use crate::serving::Server;

#[test]
fn a_store_that_is_named_is_made() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.join("empty")).unwrap();
    for store in ["new/db", "empty", "empty"] {
        let server = Server::ready(&sandbox, &[store]);
        server.stop();
        assert_eq!(
            sandbox.git(["-C", store, "rev-parse", "--is-bare-repository"]),
            "true"
        );
    }
    sandbox.write("full/file", "");
    assert_snapshot!(sandbox.dk(["serve", "full"]), @"
    ! dk: cannot make a store at full
    ! caused by: $DIR/full is not empty and not a repository
    ! hint: name a directory that is new or empty
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["serve", "--read-only", "none"]), @"
    ! dk: cannot open none
    ! caused by: a repository at $DIR/none does not exist
    exit status 1
    ");
    assert!(!sandbox.join("none").exists());
}

#[test]
fn a_store_that_is_not_named_must_be_there() {
    let sandbox = Sandbox::new();
    assert_snapshot!(sandbox.dk(["serve"]), @"
    ! dk: no store: there is no Git repository at $DIR
    ! hint: name one: dk serve STORE makes it if it is not there; or use --memory
    exit status 1
    ");
    assert_snapshot!(sandbox.dk(["-C", "none", "serve"]), @"
    ! dk: no store: there is no Git repository at none
    ! hint: name one: dk serve STORE makes it if it is not there; or use --memory
    exit status 1
    ");
    let sandbox = Sandbox::with_store();
    Server::ready(&sandbox, &[]).stop();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let sandbox = Sandbox::new();
    for (arguments, why) in [
        (
            &["--memory", "--auto-push", "there"][..],
            "cannot be pushed",
        ),
        (&["--memory", "db"], "cannot be used with"),
        (&["--listen", "localhost"], "begins with tcp://"),
        (&["--listen", "tcp://a:b"], "a port is a number"),
        (&["--metrics", "localhost"], "an address with a port"),
        (
            &["--log-destination", "syslog"],
            "stderr, journald or file:PATH",
        ),
        (
            &["--log-level", "loud"],
            "quiet, app, error, warning, info, debug",
        ),
        (&["--max-msize", "4095"], "4096"),
        (&["gopher://x"], "no store is named that way"),
        (&[""], "a value is required"),
    ] {
        let mut all = vec!["serve"];
        all.extend(arguments);
        let shown = sandbox.dk(all);
        assert!(
            shown.contains(why) && shown.ends_with("exit status 2\n"),
            "{shown}"
        );
    }
    let left: Vec<_> = std::fs::read_dir(sandbox.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn datakits_spellings_are_understood() {
    let sandbox = Sandbox::new();
    // Its repositories lie in PATH/.git, with nothing beside.
    sandbox.git(["init", "--quiet", "--bare", "-b", "master", "data/.git"]);
    sandbox.git(["-C", "data/.git", "config", "--unset", "core.bare"]);
    let server = Server::start(
        &sandbox,
        &[
            "--url=tcp://127.0.0.1:0",
            "--listen-9p=unix://a,file://b",
            "--git=data",
            "--listen-prometheus=0",
            "-v",
        ],
    );
    server.says(" at unix://a");
    server.says(" at unix://b");
    let url = server.says("metrics at ");
    assert!(url.starts_with("http://:"), "{url}");
    server.says("info serve: ");
    assert_eq!(
        sandbox.git(["-C", "data/.git", "config", "dk.denyCurrentBranch"]),
        "ignore"
    );
    server.stop();
    // A work tree of somebody is not taken for one of those.
    sandbox.git(["init", "--quiet", "work"]);
    sandbox.write("work/file", "");
    Server::ready(&sandbox, &["work"]).stop();
    assert!(
        !sandbox
            .read("work/.git/config")
            .contains("denyCurrentBranch")
    );
}

#[test]
fn every_metric_is_in_the_man_page_and_no_other() {
    let metrics = datakit::metrics::metrics();
    // What has labels shows once it was counted.
    let message = datakit::metrics::Message { message: "walk" };
    metrics.requests.get_or_create(&message).inc();
    metrics.errors.get_or_create(&message).inc();
    metrics.latency.get_or_create(&message).observe(0.1);
    let text = metrics.text();
    let mut kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut told: Vec<String> = kinds
        .by_ref()
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let end = if kind == "counter" { "_total" } else { "" };
            let labels =
                match text.contains(&format!("\n{name}{end}{{message=")) || kind == "histogram" {
                    true => "{message}",
                    false => "",
                };
            format!("{name}{end}{labels}")
        })
        .collect();
    let documented = |page: &str| -> Vec<String> {
        let page = Sandbox::new().ok(["man"].into_iter().chain(page.split(' ')));
        let lines = page.lines().filter(|line| line.starts_with("\\fBdatakit_"));
        let words = lines.flat_map(|line| line["\\fB".len()..].split(", "));
        let mut names: Vec<String> = words
            .map(|word| word.trim_end_matches("\\fR").replace('\\', ""))
            .collect();
        names.sort();
        names
    };
    told.sort();
    // The other daemons have pages of their own.
    for (page, prefixes) in [
        ("bridge github", &["datakit_bridge_", "datakit_github_"][..]),
        ("ci serve", &["datakit_ci_"]),
    ] {
        let names = documented(page);
        let name = |text: &str| text.split('{').next().unwrap_or_default().to_owned();
        let names: Vec<String> = names.iter().map(|text| name(text)).collect();
        let is_its = |told: &String| prefixes.iter().any(|prefix| told.starts_with(prefix));
        for told in told.iter().filter(|told| is_its(told)) {
            assert!(names.contains(&name(told)), "{told} is not in {page}");
        }
        told.retain(|told| !is_its(told));
    }
    assert_eq!(documented("serve"), told);
}
