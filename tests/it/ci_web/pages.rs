//! What the pages show.

use std::sync::Arc;

use datakit::ci::{Pool, Status, Use, layout};
use datakit::model::Time;

use super::site::*;
use insta::assert_snapshot;

#[tokio::test]
async fn the_front_page_has_projects_and_their_dashboards() {
    let site = Site::open(&stocked().await).await;
    let page = site.get("/").await;
    assert_eq!(page.status, 200);
    assert_snapshot!(page.shown(), @"datakit-ci me/app 1 failing, 1 pending, 2 passing master Success (build); skipped: not a release (deploy); 12 passed (test,os=linux)");
    assert!(
        page.text
            .contains(r#"<a class="success" href="/me/app/ref/heads/master">"#)
    );
}

#[tokio::test]
async fn lists_have_a_row_a_target() {
    let site = Site::open(&stocked().await).await;
    assert_snapshot!(site.get("/branch").await.shown(), @"Branches 2 Filter Filter me/app feature/x exited with status 2 (build); build failed (test,os=linux) 0000000000 master Success (build); skipped: not a release (deploy); 12 passed (test,os=linux) 0000000000");
    assert_snapshot!(site.get("/pr").await.shown(), @"Pull requests 1 Filter Filter me/app #7 Make it &lt;b&gt;faster&lt;/b&gt; Building (build); Waiting for build (test,os=linux) 0000000000");
    assert_snapshot!(site.get("/tag").await.shown(), @"Tags 1 Filter Filter me/app v1.0 Success 0000000000");
    assert_snapshot!(site.get("/branch?q=FEATURE%20x").await.shown(), @"Branches 1 Filter Filter me/app feature/x exited with status 2 (build); build failed (test,os=linux) 0000000000");
    assert_snapshot!(site.get("/branch?q=nothing").await.shown(), @"Branches 0 Filter Filter There are none with that.");
    let project = site.get("/me/app").await;
    assert!(
        project.shown().contains("Branches 2"),
        "{}",
        project.shown()
    );
    // What others wrote is text.
    let pr = site.get("/pr").await.text;
    assert!(pr.contains("Make it &lt;b&gt;faster&lt;/b&gt;") && !pr.contains("<b>faster"));
}

#[tokio::test]
async fn a_repository_is_linked_where_people_see_it() {
    let shop = stocked().await;
    let pages = ["/me/app", "/me/app/ref/heads/feature/x", "/me/app/pr/7"];
    let links = async |base: Option<&str>| {
        let change = |settings: &mut datakit::ci::web::Settings| {
            settings.browse.clear();
            let repo = datakit::forge::Repo::new("me", "app").unwrap();
            settings
                .browse
                .extend(base.map(|base| (repo, base.to_owned())));
        };
        let site = Site::with(&shop, change, None).await;
        let mut found = Vec::new();
        for page in pages {
            let text = site.get(page).await.text;
            let links = text.split("href=\"https://").skip(1);
            found.extend(links.map(|link| link.split("</a>").next().unwrap().to_owned()));
        }
        found
    };
    assert_eq!(links(None).await, [""; 0]);
    assert_eq!(
        links(Some("https://github.com/me/app")).await,
        [
            "github.com/me/app\">GitHub",
            "github.com/me/app/tree/feature/x\">GitHub",
            "github.com/me/app/pull/7\">GitHub",
        ]
    );
    assert_eq!(
        links(Some("https://git.example.org/x")).await[2],
        "git.example.org/x/pull/7\">The repository"
    );
}

#[tokio::test]
async fn a_target_has_steps_logs_and_a_history() {
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    let page = site.get("/me/app/ref/heads/master").await;
    assert_snapshot!(page.shown(), @"me/app / branches master success Commit 0000000000 Since 2023-11-14 22:13 UTC See GitHub build: success, Success build deploy: success, skipped: not a release deploy test,os=linux: success, 12 passed test,os=linux Steps build Success 1 min 15 s Log of build of me/app/heads/master test,os=linux 12 passed (needs build) 1 min 15 s Log of test,os=linux of me/app/heads/master deploy skipped: not a release (needs test,os=linux) History 2023-11-14 22:13 UTC 145c60216c 3 updates (build -&gt; Success, ...) 2023-11-14 22:13 UTC 3b30045386 build -&gt; queued The whole history");
    assert!(page.text.contains("<svg"), "a graph");
    let failed = site.get("/me/app/ref/heads/feature/x?test=build").await;
    assert_snapshot!(failed.shown(), @"me/app / branches feature/x failure Commit 0000000000 Since 2023-11-14 22:13 UTC See GitHub build: failure, exited with status 2 build test,os=linux: failure, build failed test,os=linux Steps build exited with status 2 1 min 15 s Log of build of me/app/heads/feature/x test,os=linux build failed (needs build) History 2023-11-14 22:13 UTC 298544a359 2 updates (build -&gt; exited with status 2, ...) The whole history");
    assert!(failed.text.contains(r#"id="job-build" class="chosen""#));
    assert!(!failed.text.contains("<form"), "nobody may rebuild");
    let pr = site.get("/me/app/pr/7").await;
    assert_snapshot!(pr.shown(), @"me/app / pull requests #7 Make it &lt;b&gt;faster&lt;/b&gt; running Commit 0000000000 By ann (a fork) Into master Since 2023-11-14 22:13 UTC See GitHub build: running, Building build test,os=linux: pending, Waiting for build test,os=linux Steps build Building Live log of build test,os=linux Waiting for build (needs build) History 2023-11-14 22:13 UTC d72a5425cd build -&gt; Building The whole history");
    let live = format!("/log/live/{}", growing());
    assert!(pr.text.contains(&live), "{}", pr.text);
    // Its history, and how it was.
    let history = site.get("/history/me/app/ref/heads/master").await;
    let ids: Vec<&str> = history
        .text
        .match_indices("?history=")
        .map(|(at, mark)| &history.text[at + mark.len()..][..40])
        .collect();
    assert_eq!(ids.len(), 2);
    let old = site
        .get(&format!("/me/app/ref/heads/master?history={}", ids[1]))
        .await;
    assert_snapshot!(old.shown().replace(&ids[1][..10], "ID"), @"me/app / branches master pending This is how it was once. How it is now Commit 0000000000 Since 2023-11-14 22:13 UTC See GitHub Steps build Waiting for build Before There was nothing. The whole history");
    // A commit of another branch is none of its moments.
    let other = site.get("/history/me/app/pr/7").await;
    let at = other.text.find("?history=").unwrap() + 9;
    let foreign = &other.text[at..at + 40];
    assert_eq!(
        site.get(&format!("/me/app/ref/heads/master?history={foreign}"))
            .await
            .status,
        404
    );
    assert_eq!(site.get("/history/me/app/ref/heads/none").await.status, 404);
}

#[tokio::test]
async fn a_commit_leads_to_its_builds() {
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    let one = site
        .get(&format!("/me/app/commit/{}?test=build", sha(2)))
        .await;
    assert_eq!(one.to(), (307, "/me/app/ref/heads/feature/x?test=build"));
    let several = site.get(&format!("/me/app/commit/{}", sha(1))).await;
    assert_snapshot!(several.shown(), @"me/app Builds of 0000000000 GitHub Now me/app/heads/master me/app/tags/v1.0");
    // The branch moves on: the build of before is found all the same.
    let done = output(layout::Outcome::success("again"), layout::Logs::None);
    shop.record(
        "me/app/heads/feature/x",
        &sha(5),
        "build -> again",
        &[("build", done, &[])],
    )
    .await;
    let old = until("the page is new", || async {
        let page = site.get(&format!("/me/app/commit/{}", sha(2))).await;
        (page.status == 200).then_some(page)
    })
    .await;
    assert_snapshot!(old.shown(), @"me/app Builds of 0000000000 GitHub Earlier me/app/heads/feature/x");
    assert_eq!(
        site.get(&format!("/me/app/commit/{}", sha(77)))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_saved_log_has_colours_lines_search_and_is_given_raw() {
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    let page = site.get("/me/app/ref/heads/feature/x").await.text;
    let at = page.find("/log/saved/").unwrap();
    let path = page[at..].split('"').next().unwrap().to_owned();
    let log = site.get(&path).await;
    assert_eq!(log.status, 200);
    assert!(log.text.contains(
        "<span class=\"l\" id=\"L300\"><a href=\"#L300\">300</a><span>line 300</span>\n</span>"
    ));
    assert!(
        log.text
            .contains("<span class='fg-bright-red bold'>error</span>: it does not work")
    );
    assert!(log.text.contains("exited with status 2") && log.text.contains("1 min 15 s"));
    let found = site.get(&format!("{path}?q=LINE%2029")).await;
    assert!(
        found.shown().contains("11 lines with “LINE 29”"),
        "{}",
        found.shown()
    );
    assert!(found.text.contains("?line=290#L290"));
    let raw = site.get(&path.replace("saved", "raw")).await;
    assert!(
        raw.text
            .ends_with("\x1b[1;31merror\x1b[m: it does not work\n")
    );
    assert_eq!(raw.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(raw.header("content-length"), raw.text.len().to_string());
    let file = site
        .get(&format!("{}?download=1", path.replace("saved", "raw")))
        .await;
    assert!(
        file.header("content-disposition")
            .starts_with("attachment; filename=\"build-")
    );
    // Nothing but logs is shown as one.
    let head = shop
        .client
        .head(&branch("github-metadata"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        site.get(&format!("/log/raw/github-metadata/{head}"))
            .await
            .status,
        404
    );
    let head = shop
        .client
        .head(&branch("commit-index"))
        .await
        .unwrap()
        .unwrap();
    let odd = path.rsplit_once('/').unwrap().0;
    // A commit that is not on the branch is not looked at: what is there is shown.
    assert_eq!(
        site.get(&format!("{odd}/{head}"))
            .await
            .text
            .matches("line 300")
            .count(),
        1
    );
    for bad in [
        "/log/saved/none/0000000000000000000000000000000000000000",
        "/log/saved/x/y",
        "/log/raw/..%2f/x",
    ] {
        assert_eq!(site.get(bad).await.status, 404, "{bad}");
    }
}

#[tokio::test]
async fn a_long_log_is_shown_in_windows() {
    let shop = Shop::new();
    let mut log = String::new();
    for number in 1..=50_000 {
        log += &format!("number {number} of a log that is long\n");
    }
    let layout::Logs::Saved(saved) = shop
        .result("me/app/heads/master", "build", log.as_bytes(), None)
        .await
    else {
        panic!("it is saved");
    };
    let site = Site::open(&shop).await;
    let path = format!("/log/saved/{}/{}", saved.branch, saved.commit);
    let first = site.get(&path).await;
    assert!(first.text.contains("id=\"L2000\"") && !first.text.contains("id=\"L2001\""));
    assert!(first.text.len() < 400_000);
    let later = site.get(&format!("{path}?line=12345")).await;
    assert!(later.text.contains(">number 12345 of"), "{}", later.shown());
    let end = site.get(&format!("{path}?line=end")).await;
    assert!(end.text.contains(">number 50000 of"));
    assert_eq!(site.get(&format!("{path}?line=x")).await.status, 400);
    let found = site.get(&format!("{path}?q=number+4999")).await;
    assert!(found.shown().contains("11 lines with"));
}

#[tokio::test]
async fn the_queue_is_the_engines() {
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    assert!(
        site.get("/queue")
            .await
            .shown()
            .contains("The engine runs elsewhere")
    );
    let status = Arc::new(Status::default());
    let used = |cell: &str| Use {
        target: target("me/app/pr/7"),
        cell: cell.into(),
        branch: branch("dk-step-x"),
        since: Time::now(),
    };
    status.update(|report| {
        report.connected = true;
        report.pools = vec![Pool {
            name: "heavy".into(),
            capacity: 2,
            running: vec![used("build")],
            waiting: vec![used("test,os=linux")],
        }];
    });
    let site = Site::with(&shop, |_| (), Some(status)).await;
    assert_snapshot!(site.get("/queue").await.shown().split(" The longest").next().unwrap().replace(" 1 s", " 0 s"), @"Queue Pool heavy 1 of 2 in use, 1 waiting me/app/pr/7 build, for 0 s Log of build of me/app/pr/7 me/app/pr/7 test,os=linux, waits for 0 s");
    assert!(site.get("/").await.shown().contains("Pool heavy"));
}

#[tokio::test]
async fn an_empty_store_and_old_records_are_shown_too() {
    let site = Site::open(&Shop::new()).await;
    // The project is configured.
    assert!(site.get("/").await.shown().contains("me/app no builds yet"));
    assert!(site.get("/branch").await.shown().contains("There are none"));
    // What an ancestor's program left, or somebody broke.
    let shop = stocked().await;
    shop.put(
        "status-me-app-ref-heads-master",
        "odd",
        &[
            ("job/odd/output", Some(b"{")),
            (
                "job/a/b/output",
                Some(br#"{"result":{"status":"success","descr":"fine"},"logs":null}"#),
            ),
        ],
    )
    .await;
    let site = Site::open(&shop).await;
    let page = site.get("/me/app/ref/heads/master").await.shown();
    assert!(page.contains("odd its record is not understood"), "{page}");
    assert!(page.contains("a/b fine"), "{page}");
}
