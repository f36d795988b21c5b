//! What GitHub once answered others, given to the bridge: `@octokit/fixtures`.

use datakit::bridge::github::api::Api;
use datakit::bridge::github::auth::Auth;
use datakit::bridge::github::http::Http;
use datakit::bridge::github::plan::Push;
use datakit::forge::*;
use serde_json::Value;

use super::world::settings;
use crate::bridge_github::world::name;
use crate::github::schema::unzipped;

/// The recorded calls of a scenario of `@octokit/fixtures`.
fn recorded(scenario: &str) -> Vec<Value> {
    let text = unzipped("recorded.ndjson.gz");
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let all = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
    all.filter(|call| call["scenario"] == scenario).collect()
}

/// Answers calls as they were recorded, and gives back what it was asked.
async fn replay(scenario: &str) -> (Http, std::sync::Arc<std::sync::Mutex<Vec<(String, Value)>>>) {
    let left = std::sync::Arc::new(std::sync::Mutex::new(recorded(scenario)));
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = asked.clone();
    let answer = move |request: axum::extract::Request| async move {
        let method = request.method().to_string();
        let path = request.uri().path().to_owned();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20)
            .await
            .unwrap();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        seen.lock()
            .unwrap()
            .push((format!("{method} {path}"), body));
        let mut left = left.lock().unwrap();
        let fits = |call: &Value| call["method"] == *method && call["path"] == *path;
        let place = left.iter().position(fits);
        let call = left.remove(place.unwrap_or_else(|| panic!("{method} {path} was not recorded")));
        let status = u16::try_from(call["status"].as_u64().unwrap()).unwrap();
        let response = axum::http::Response::builder().status(status);
        let body = match &call["response"] {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        response.body(axum::body::Body::from(body)).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let http = Http::new(settings(&url), Auth::Anonymous, Default::default()).unwrap();
    (http, asked)
}

#[tokio::test]
async fn recorded_answers_are_understood() {
    let sha = "0000000000000000000000000000000000000001";
    let of: Repo = "octokit-fixture-org/create-status".parse().unwrap();
    let (http, asked) = replay("create-status").await;
    for call in recorded("create-status")
        .iter()
        .filter(|call| call["method"] == "POST")
    {
        let body = &call["body"];
        let state = StatusState::ALL
            .into_iter()
            .find(|state| body["state"] == state.word())
            .unwrap();
        let status = Status::new(
            state,
            body["description"].as_str(),
            body["target_url"].as_str(),
        );
        let at = context(body["context"].as_str().unwrap_or_default()).unwrap();
        http.push(&Push::Status(of.clone(), sha.into(), at, status))
            .await
            .unwrap();
        let (_, mut sent) = asked.lock().unwrap().pop().unwrap();
        // What nobody names is called the same by GitHub.
        if body["context"].is_null() {
            sent.as_object_mut().unwrap().remove("context");
        }
        assert_eq!(&sent, body);
    }
    let statuses = http.statuses(&of, sha).await.unwrap();
    let shown: Vec<_> = statuses
        .iter()
        .map(|(at, status)| format!("{at} {} {:?}", status.state.word(), status.description))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    example/1 failure Some("create-status failure test")
    example/2 success Some("create-status success test")
    "#);

    let of: Repo = "octokit-fixture-org/git-refs".parse().unwrap();
    let (http, asked) = replay("git-refs").await;
    let test = name("heads/test");
    http.push(&Push::SetRef(of.clone(), test.clone(), sha.into()))
        .await
        .unwrap();
    let body = asked.lock().unwrap()[0].1.clone();
    assert_eq!((&body["sha"], &body["force"]), (&sha.into(), &false.into()));
    http.push(&Push::RemoveRef(of, test)).await.unwrap();

    let said = &recorded("errors")[0]["response"];
    assert_eq!(said["message"], "Validation Failed");
}
