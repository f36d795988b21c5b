//! Logs while they grow.

use datakit::ci::layout;
use datakit::ci::web::live::{End, Tails};
use std::sync::Arc;

use super::site::*;

/// A branch that holds the beginning of a log.
async fn begun(shop: &Shop, name: &str, text: &[u8]) {
    let known = build("me/app/heads/master", "test", None);
    shop.put(
        name,
        "Begin",
        &[("build", Some(&known)), (&layout::log_part(0), Some(text))],
    )
    .await;
}

async fn finish(shop: &Shop, name: &str, log: &[u8], failure: Option<&[u8]>) -> String {
    let files = [("log", Some(log)), ("log.d", None), ("failure", failure)];
    let files = &files[..if failure.is_some() { 3 } else { 2 }];
    shop.put(name, "Cached", files).await.to_hex()
}

/// Reads an answer until it holds something.
async fn read_to(answer: &mut reqwest::Response, text: &mut String, wanted: &str) {
    let limit = std::time::Duration::from_secs(30);
    while !text.contains(wanted) {
        let chunk = tokio::time::timeout(limit, answer.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("{wanted:?} did not come: {text}"));
        *text += &String::from_utf8_lossy(&chunk.unwrap().expect("more"));
    }
}

#[tokio::test]
async fn a_log_streams_as_html_and_is_saved_afterwards() {
    let shop = Shop::new();
    let name = "test/log";
    begun(&shop, name, b"TEST-\x1b[1;31mOUT").await;
    let site = Site::open(&shop).await;
    let path = "/log/live/test%2flog";
    let mut answer = site
        .request(reqwest::Method::GET, path)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-accel-buffering"], "no");
    let mut text = String::new();
    read_to(
        &mut answer,
        &mut text,
        "TEST-<span class='fg-bright-red bold'>OUT</span>",
    )
    .await;
    shop.put(
        name,
        "More",
        &[(&layout::log_part(1), Some(b"PUT\x1b[m-1"))],
    )
    .await;
    read_to(
        &mut answer,
        &mut text,
        "TEST-<span class='fg-bright-red bold'>OUTPUT</span>-1",
    )
    .await;
    shop.put(name, "More", &[(&layout::log_part(2), Some(b"\n<&"))])
        .await;
    read_to(&mut answer, &mut text, "&lt;&amp;").await;
    let whole = b"TEST-\x1b[1;31mOUTPUT\x1b[m-1\n<&\nend\n";
    let commit = finish(&shop, name, whole, None).await;
    read_to(&mut answer, &mut text, "</footer>").await;
    assert!(
        text.contains("<span>end</span>") && text.contains("Success."),
        "{text}"
    );
    assert_eq!(text.matches("id=\"L2\"").count(), 1);
    let saved = site.get(path).await;
    let to = format!("/log/saved/test%2Flog/{commit}");
    assert_eq!(saved.to(), (307, to.as_str()));
    let page = site.get(&to).await.text;
    assert!(
        page.contains("TEST-<span class='fg-bright-red bold'>OUTPUT</span>-1")
            && page.contains("&lt;&amp;")
    );
    let none = site.get("/log/live/none").await;
    assert!(
        none.status == 500 && none.shown().contains("Log finished, but wasn't saved!"),
        "{}",
        none.shown()
    );
}

#[tokio::test]
async fn events_go_on_where_a_reader_was() {
    let shop = Shop::new();
    begun(&shop, "b", b"one\ntwo\nthr").await;
    let site = Site::open(&shop).await;
    let open = |last: Option<&'static str>| {
        let mut request = site.request(reqwest::Method::GET, "/log/live/b/events?from=2");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send()
    };
    let (mut first, mut second) = (open(None).await.unwrap(), open(Some("3")).await.unwrap());
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    let (mut a, mut b) = (String::new(), String::new());
    read_to(&mut first, &mut a, "\n\n").await;
    read_to(&mut second, &mut b, "\n\n").await;
    assert_eq!(
        a,
        "id: 3\nevent: lines\ndata: {\"begun\":\"thr\",\"first\":2,\"lines\":[\"two\"],\"skipped\":0}\n\n"
    );
    assert_eq!(
        b,
        "id: 3\nevent: lines\ndata: {\"begun\":\"thr\",\"first\":3,\"lines\":[],\"skipped\":0}\n\n"
    );
    let commit = finish(
        &shop,
        "b",
        b"one\ntwo\nthree\n",
        Some(b"exited with status 1"),
    )
    .await;
    read_to(&mut first, &mut a, "event: done").await;
    read_to(&mut first, &mut a, "saved").await;
    assert!(a.contains("\"lines\":[\"three\"]"), "{a}");
    assert!(
        a.contains("\"state\":\"failure\"")
            && a.contains("exited with status 1")
            && a.contains(&commit),
        "{a}"
    );
    // And then it ends.
    assert!(first.chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn many_readers_cost_one_and_slow_ones_hold_up_nobody() {
    let shop = Shop::new();
    let mut text: String = (1..=6000).map(|n| format!("line {n}\n")).collect();
    begun(&shop, "b", text.as_bytes()).await;
    let tails = Arc::new(Tails::new(Arc::clone(&shop.client)));
    let mut readers: Vec<_> = (0..200).map(|_| tails.follow(&branch("b"), 5900)).collect();
    assert_eq!(tails.len(), 1);
    let mut slow = tails.follow(&branch("b"), 1);
    for reader in &mut readers {
        let mut seen = Vec::new();
        while seen
            .last()
            .is_none_or(|line: &Arc<str>| &**line != "line 6000")
        {
            seen.extend(reader.next().await.unwrap().lines);
        }
        assert_eq!((&*seen[0], seen.len()), ("line 5900", 101));
    }
    let batch = slow.next().await.unwrap();
    assert!(batch.skipped == 1000 && &*batch.lines[0] == "line 1001");
    text += "end\n";
    finish(&shop, "b", text.as_bytes(), None).await;
    for reader in &mut readers {
        let mut last = reader.next().await.unwrap();
        while last.end.is_none() {
            last = reader.next().await.unwrap();
        }
        assert!(matches!(last.end, Some(End::Saved { failure: None, .. })));
        assert!(reader.next().await.is_none());
    }
    drop((readers, slow));
    assert!(tails.is_empty(), "nobody looks: nothing is followed");
}

#[tokio::test]
async fn a_page_hears_of_changes() {
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    let page = site.get("/me/app/ref/heads/feature/x").await.text;
    let at = page.find("data-state=\"").unwrap() + 12;
    let version = page[at..].split('"').next().unwrap();
    let path = format!("/events?from={version}");
    let mut answer = site
        .request(reqwest::Method::GET, &path)
        .send()
        .await
        .unwrap();
    let done = output(layout::Outcome::success("again"), layout::Logs::None);
    shop.record(
        "me/app/heads/feature/x",
        &sha(5),
        "build -> again",
        &[("build", done, &[])],
    )
    .await;
    read_to(&mut answer, &mut String::new(), "event: change").await;
    let page = site.get("/me/app/ref/heads/feature/x").await;
    assert!(page.shown().contains("build again"), "{}", page.shown());
}
