//! What GitHub tells by itself: its own examples of every event, and the
//! listener they come to.

use std::sync::Arc;

use datakit::bridge::github::api::Event;
use datakit::bridge::github::webhook::{Inbox, parse, router};

use crate::github::schema::unzipped;
use crate::github::sign;

/// Every example with the name of its event.
fn examples() -> Vec<(String, Vec<u8>)> {
    let text = unzipped("webhooks.ndjson.gz");
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let value: serde_json::Value = serde_json::from_slice(line).unwrap();
            let event = value["event"].as_str().unwrap().to_owned();
            (event, serde_json::to_vec(&value["payload"]).unwrap())
        })
        .collect()
}

#[test]
fn every_example_of_github_is_understood() {
    let examples = examples();
    assert_eq!(examples.len(), 329);
    let mut told = Vec::new();
    for (kind, payload) in &examples {
        let events = parse(kind, payload).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let shown = |event: &Event| match event {
            Event::Pr(_, number, pr) => format!("{number} {}", pr.state.word()),
            Event::Look(_, number) => format!("look at {number}"),
            Event::Ref(_, name, head) => format!("{name} {}", head.as_deref().unwrap_or("gone")),
            Event::Rebuild(_, sha, context) => match context {
                Some(context) => format!("again {} {context}", &sha[..7]),
                None => format!("again {}", &sha[..7]),
            },
            Event::Account(account) => format!("of {account}"),
            Event::Again(_) => "again".into(),
            Event::Status(_, sha, context, status) => {
                format!("{} {context} {}", &sha[..7], status.state.word())
            }
        };
        told.extend(events.iter().map(|event| match event.repo() {
            Some(repo) => format!("{kind} {repo} {}", shown(event)),
            None => format!("{kind} {}", shown(event)),
        }));
    }
    told.sort();
    told.dedup();
    insta::assert_snapshot!(told.join("\n"), @r"
    check_run github/hello-world again d6fde92 randscape
    check_suite Codertocat/Hello-World again ec26c3e
    delete Codertocat/Hello-World tags/simple-tag gone
    installation of Codertocat
    installation of octocat
    installation_repositories of Codertocat
    installation_repositories of octocat
    pull_request Codertocat/Hello-World 2 closed
    pull_request Codertocat/Hello-World 2 open
    pull_request_review Codertocat/Hello-World look at 2
    push Codertocat/Hello-World heads/master 6113728f27ae82c7b1a177c8d03f9e96e0adf246
    push Codertocat/Hello-World tags/simple-tag 6113728f27ae82c7b1a177c8d03f9e96e0adf246
    push Codertocat/Hello-World tags/simple-tag gone
    repository of Codertocat
    repository of Octocoders
    status Codertocat/Hello-World 6113728 default success
    ");
}

#[test]
fn nonsense_is_no_panic() {
    for kind in [
        "pull_request",
        "push",
        "status",
        "delete",
        "issue_comment",
        "pull_request_review",
        "other",
    ] {
        for body in [
            &b""[..],
            b"{}",
            b"[]",
            b"null",
            b"\xff",
            b"{\"repository\":{\"full_name\":7}}",
        ] {
            let known =
                kind == "other" && serde_json::from_slice::<serde_json::Value>(body).is_ok();
            assert_eq!(parse(kind, body).is_ok(), known, "{kind} {body:?}");
        }
    }
}

#[tokio::test]
async fn deliveries_are_answered_and_kept_until_they_are_used() {
    let inbox = Arc::new(Inbox::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/test/test", listener.local_addr().unwrap());
    let router = router("secret".into(), inbox.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let (_, body) = examples()
        .into_iter()
        .find(|(kind, _)| kind == "status")
        .unwrap();
    datakit::tls::provide();
    let client = reqwest::Client::new();
    let deliver = |id: &'static str, signature: Option<String>| {
        let request = client
            .post(&url)
            .header("x-github-event", "status")
            .header("x-github-delivery", id);
        let request = match signature {
            Some(signature) => request.header("x-hub-signature-256", signature),
            None => request,
        };
        let request = request.body(body.clone());
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(deliver("1", None).await, 403);
    assert_eq!(deliver("1", Some(sign("other", &body))).await, 403);
    assert!(inbox.events().is_empty());
    let (filled, answer) = tokio::join!(inbox.filled(), deliver("1", Some(sign("secret", &body))));
    assert_eq!(((), answer), (filled, 204));
    assert_eq!(deliver("1", Some(sign("secret", &body))).await, 204);
    assert_eq!(inbox.events().len(), 1, "the same delivery once");
    assert_eq!(deliver("2", Some(sign("secret", &body))).await, 204);
    inbox.used(1);
    assert_eq!(inbox.events().len(), 1);
    assert_eq!(
        client.get(&url).send().await.unwrap().status().as_u16(),
        405
    );
    let garbage = client.post(&url).header("x-github-event", "status");
    let garbage = garbage
        .header("x-hub-signature-256", sign("secret", b"{"))
        .body("{");
    assert_eq!(garbage.send().await.unwrap().status().as_u16(), 400);
    server.abort();
}
