//! What programs ask the pages for, and what is refused.

use std::sync::Arc;

use datakit::ci::Status;
use insta::assert_snapshot;
use reqwest::Method;

use super::site::*;

#[tokio::test]
async fn json_mirrors_what_there_is() {
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    let get = async |path: &str| {
        let answer = site.get(path).await;
        assert_eq!(answer.header("content-type"), "application/json");
        crate::sandbox::ids(&answer.text)
    };
    assert_snapshot!(get("/api/v1").await, @r#"[{"project":"me/app","targets":4,"success":2,"failure":1,"pending":1}]"#);
    assert_snapshot!(get("/api/v1/me/app/ref/heads/feature/x").await, @r#"{"target":"me/app/heads/feature/x","state":"failure","text":"exited with status 2 (build); build failed (test,os=linux)","source":"ID1","commit":"ID2","open":true,"head":"ID1","jobs":[{"name":"build","state":"failure","text":"exited with status 2","needs":[],"logs":[{"branch":"dk-step-build-of-ID3","commit":"ID4"}]},{"name":"test,os=linux","state":"failure","text":"build failed","needs":["build"],"logs":[]}]}"#);
    assert_snapshot!(get("/api/v1/me/app/pr/7").await, @r#"{"target":"me/app/pr/7","state":"running","text":"Building (build); Waiting for build (test,os=linux)","source":"ID1","commit":"ID2","open":true,"head":"ID1","title":"Make it <b>faster</b>","jobs":[{"name":"build","state":"running","text":"Building","needs":[],"logs":[{"branch":"dk-step-build-of-ID3"}]},{"name":"test,os=linux","state":"pending","text":"Waiting for build","needs":["build"],"logs":[]}]}"#);
    assert_snapshot!(get("/api/v1/history/me/app/ref/heads/master").await, @r#"[{"commit":"ID1","time":"2023-11-14T22:13:20Z","message":"3 updates (build -> Success, ...)"},{"commit":"ID2","time":"2023-11-14T22:13:20Z","message":"build -> queued"}]"#);
    let all: serde_json::Value =
        serde_json::from_str(&site.get("/api/v1/me/app").await.text).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 4);
    let commit = get(&format!("/api/v1/me/app/commit/{}", sha(2))).await;
    assert!(
        commit.starts_with(r#"[{"target":"me/app/heads/feature/x","state":"failure""#),
        "{commit}"
    );
    for path in [
        "/api/v1/no/body",
        "/api/v1/me/app/pr/x",
        "/api/v1/me/app/pr/8",
        "/api/v1/queue",
        "/api/v1/x",
    ] {
        let answer = site.get(path).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (404, "application/json"),
            "{path}"
        );
        assert!(answer.text.starts_with(r#"{"error":""#));
    }
}

#[tokio::test]
async fn badges_say_a_word() {
    let site = Site::open(&stocked().await).await;
    for (target, word) in [
        ("heads/master", "passing"),
        ("heads/feature/x", "failing"),
        ("pr/7", "pending"),
        ("heads/none", "unknown"),
    ] {
        let badge = site.get(&format!("/badge/me/app/{target}.svg")).await;
        assert_eq!(badge.header("content-type"), "image/svg+xml");
        assert!(
            badge
                .text
                .contains(&format!("aria-label=\"build: {word}\"")),
            "{}",
            badge.text
        );
    }
    let label = site
        .get("/badge/me/app/heads/master.svg?label=%3Cscript%3E")
        .await;
    assert!(label.text.contains("&lt;script&gt;") && !label.text.contains("<script"));
    assert_eq!(site.get("/badge/me/app/heads/master").await.status, 404);
    assert_eq!(site.get("/badge/me/app/x.svg").await.status, 404);
}

#[tokio::test]
async fn counts_are_for_who_has_the_token() {
    let shop = stocked().await;
    let none = Site::open(&shop).await;
    assert_eq!(none.get("/metrics").await.status, 403);
    // The SHA-256 of "token".
    let digest = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";
    let site = Site::with(
        &shop,
        |settings| settings.web.metrics_token = Some(digest.into()),
        None,
    )
    .await;
    let ask = |token: &str| {
        site.request(Method::GET, "/metrics")
            .header("authorization", token.to_owned())
    };
    for wrong in ["Bearer tokem", "token", "Bearer", "Basic token"] {
        let answer = site.send(ask(wrong)).await;
        assert!(
            answer.status == 403 && answer.shown().contains("Bad token"),
            "{wrong}"
        );
    }
    let answer = site.send(ask("Bearer token")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.contains("datakit_ci_web_requests_total"));
}

#[tokio::test]
async fn health_is_of_the_store_and_the_engine() {
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    let answer = site.get("/healthz").await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (200, "store: ok\nengine: elsewhere\n")
    );
    let status = Arc::new(Status::default());
    let site = Site::with(&shop, |_| (), Some(Arc::clone(&status))).await;
    assert_eq!(site.get("/healthz").await.status, 503);
    status.update(|report| report.connected = true);
    assert_eq!(site.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn what_is_not_there_and_what_may_not_be_is_said() {
    let site = Site::open(&stocked().await).await;
    for path in [
        "/nothing",
        "/no/body",
        "/me/app/pr/x",
        "/me/app/pr/999",
        "/me/app/ref/heads/none",
        "/me/app/commit/zz%2f",
        "/auth/nothing",
        "/static/none.css",
        "/error/none",
        "/log/saved/a",
        "/..%2f..%2fetc/passwd",
        "/me/app/ref/heads/..",
        "/%ff%fe",
        "/me/app/x/y/z",
        "/user/x",
        "/settings/x",
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.shown());
        assert!(answer.text.contains("</footer>"), "{path}: a whole page");
    }
    for (method, path) in [
        (Method::POST, "/"),
        (Method::PUT, "/me/app"),
        (Method::DELETE, "/auth/login"),
        (Method::GET, "/act/rebuild"),
        (Method::GET, "/auth/logout"),
    ] {
        let answer = site.send(site.request(method, path)).await;
        assert_eq!(answer.status, 405, "{path}");
        assert!(!answer.header("allow").is_empty());
    }
    let head = site.send(site.request(Method::HEAD, "/")).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    let style = site.get("/").await.text;
    let start = style.find("/static/style.css").unwrap();
    let path = style[start..].split('"').next().unwrap();
    let style = site.get(path).await;
    assert_eq!(
        style.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
    assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
}
