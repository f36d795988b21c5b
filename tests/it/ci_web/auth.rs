//! Who may do what: roles, set-up, passwords, sessions, tokens, GitHub.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use datakit::ci::config::Who;
use datakit::ci::layout;
use datakit::ci::web::auth::Endpoints;
use reqwest::Method;

use super::site::*;

#[tokio::test]
async fn who_may_not_read_is_sent_to_log_in_and_back() {
    let site = Site::with(
        &stocked().await,
        |settings| settings.web.can_read = admin_only(),
        None,
    )
    .await;
    for path in [
        "/",
        "/branch",
        "/me/app",
        "/me/app/pr/7",
        "/queue",
        "/log/live/x",
        "/me/none/pr/1",
        "/badge/me/app/heads/master.svg",
    ] {
        assert_eq!(site.get(path).await.to(), (303, "/auth/login"), "{path}");
    }
    assert_eq!(site.get("/api/v1").await.status, 401);
    assert_eq!(site.get("/events").await.status, 401);
    site.forget();
    site.get("/me/app/pr/7?test=a%20b").await;
    let token = site.get("/auth/login").await.token();
    let before = site.jar.lock().unwrap().clone();
    site.log_in_with("admin", "correct horse", &token).await;
    let answer = site.get("/").await;
    assert_eq!(answer.status, 200);
    assert_ne!(
        *site.jar.lock().unwrap(),
        before,
        "the session is a new one"
    );
    // Another user is told that it is not for them.
    site.forget();
    site.log_in("bob").await;
    assert_eq!(site.get("/").await.to(), (303, "/error/permission-denied"));
    assert_eq!(
        site.get("/settings").await.to(),
        (303, "/error/permission-denied")
    );
    assert_eq!(site.get("/error/permission-denied").await.status, 200);
    assert_eq!(site.get("/api/v1").await.status, 403);
}

impl Site {
    async fn log_in_with(&self, name: &str, password: &str, token: &str) {
        let users =
            datakit::ci::web::auth::passwords::Passwords::within(&self.secrets.path().join("web"));
        users.set(name, password).unwrap();
        let fields = [("user", name), ("password", password), ("CSRFToken", token)];
        let answer = self.post("/auth/login", &fields).await;
        assert_eq!(answer.to(), (303, "/me/app/pr/7?test=a%20b"));
    }
}

#[tokio::test]
async fn a_page_for_everyone_needs_no_session() {
    let site = Site::open(&stocked().await).await;
    let page = site.get("/").await;
    assert_eq!(page.status, 200);
    assert!(site.jar.lock().unwrap().is_empty());
    assert_eq!(
        page.header("content-security-policy").split(';').next(),
        Some("default-src 'none'")
    );
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "private, no-cache"),
    ] {
        assert_eq!(page.header(name), value);
    }
    assert!(
        !page.text.contains("<style")
            && !page.text.contains(" style=")
            && !page.text.contains("onclick")
    );
    let login = site.get("/auth/login").await;
    let cookie = login.header("set-cookie");
    assert!(cookie.starts_with("__ci_session:datakit-ci="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    // Behind https it goes nowhere else.
    let site = Site::with(
        &stocked().await,
        |settings| settings.url = "https://ci.example.org/".into(),
        None,
    )
    .await;
    let login = site.get("/auth/login").await;
    assert!(login.header("set-cookie").ends_with("; Secure"));
    assert!(!login.header("strict-transport-security").is_empty());
}

#[tokio::test]
async fn the_first_password_is_chosen_once_with_the_token_of_the_log() {
    let site = Site::open(&stocked().await).await;
    let link = site.app.introduction().expect("nobody is known");
    let path = link.strip_prefix(&site.url).unwrap().to_owned();
    assert!(
        site.get("/auth/login")
            .await
            .shown()
            .contains("Nobody can log in")
    );
    let wrong = site.get("/auth/intro/AAAA").await;
    assert!(wrong.status == 403 && wrong.shown().contains("Bad token"));
    assert_eq!(site.get("/auth/setup").await.to(), (303, "/auth/login"));
    assert_eq!(site.get(&path).await.to(), (303, "/auth/setup"));
    let token = site.get("/auth/setup").await.token();
    let tried = |first: &'static str, second: &'static str| {
        let token = token.clone();
        let site = &site;
        async move {
            let fields = [
                ("password1", first),
                ("password2", second),
                ("CSRFToken", token.as_str()),
            ];
            site.post("/auth/setup", &fields).await
        }
    };
    for (first, second, told) in [
        ("", "", "Cannot be empty"),
        ("long enough", "another one", "Values don't match!"),
        ("short", "short", "At least 8 characters"),
    ] {
        let answer = tried(first, second).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.text.contains(&told.replace('\'', "&#39;")) || answer.text.contains(told),
            "{told}"
        );
        assert!(!answer.text.contains("long enough"));
    }
    // The token opens once.
    let kept = std::mem::take(&mut *site.jar.lock().unwrap());
    assert_eq!(site.get(&path).await.status, 403);
    *site.jar.lock().unwrap() = kept;
    assert_eq!(
        tried("long enough", "long enough").await.to(),
        (303, "/auth/login")
    );
    let again = site.get(&path).await;
    assert!(again.status == 403 && again.shown().contains("Already initialised"));
    assert!(site.app.introduction().is_none());
    // The session of the set-up is over.
    assert_eq!(site.get("/settings").await.to(), (303, "/auth/login"));
    let token = site.get("/auth/login").await.token();
    let fields = [
        ("user", "admin"),
        ("password", "long enough"),
        ("CSRFToken", token.as_str()),
    ];
    assert_eq!(
        site.post("/auth/login", &fields).await.to(),
        (303, "/settings")
    );
    assert!(
        site.get("/auth/setup")
            .await
            .shown()
            .contains("Already configured!")
    );
    assert!(site.get("/user/profile").await.shown().starts_with("admin"));
    let token = site.get("/user/profile").await.token();
    assert_eq!(
        site.post("/auth/logout", &[("CSRFToken", &token)])
            .await
            .to(),
        (303, "/")
    );
    assert_eq!(site.get("/user/profile").await.to(), (303, "/auth/login"));
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let site = Site::open(&stocked().await).await;
    site.log_in("admin").await;
    site.forget();
    let token = site.get("/auth/login").await.token();
    let fields = [
        ("user", "admin"),
        ("password", "wrong"),
        ("CSRFToken", token.as_str()),
    ];
    for _ in 0..5 {
        let answer = site.post("/auth/login", &fields).await;
        assert_eq!(answer.status, 400);
        assert!(answer.shown().contains("Invalid username/password"));
        assert!(
            answer.text.contains("value=\"admin\"") && !answer.text.contains("value=\"wrong\"")
        );
    }
    let right = [
        ("user", "admin"),
        ("password", "correct horse"),
        ("CSRFToken", token.as_str()),
    ];
    let answer = site.post("/auth/login", &right).await;
    assert_eq!(answer.status, 429);
    assert!(
        answer
            .header("retry-after")
            .parse::<u64>()
            .is_ok_and(|seconds| seconds > 0)
    );
}

#[tokio::test]
async fn every_post_brings_the_token_of_its_session() {
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    site.log_in("admin").await;
    let page = site.get("/me/app/ref/heads/feature/x").await;
    let token = page.token();
    let form = [("target", "me/app/heads/feature/x"), ("redirect", "/")];
    for path in [
        "/act/rebuild",
        "/act/cancel",
        "/act/approve",
        "/log/rebuild/x?redirect=/",
        "/cancel/x",
        "/auth/logout",
        "/auth/login",
        "/settings/github-auth",
    ] {
        let none = site.post(path, &form).await;
        assert!(
            none.status == 403 && none.shown().contains("Missing CSRFToken"),
            "{path}"
        );
        let mut wrong = form.to_vec();
        wrong.push(("CSRFToken", "AAAAAAAAAAAAAAAAAAAAAA"));
        let wrong = site.post(path, &wrong).await;
        assert!(
            wrong.status == 403 && wrong.shown().contains("Incorrect CSRFToken"),
            "{path}"
        );
    }
    // In the query, as the ancestor has it, or in the form.
    let path = format!("/act/rebuild-failed?CSRFToken={}", encoded(&token));
    assert_eq!(site.post(&path, &form).await.to(), (303, "/"));
    let json = site
        .request(Method::POST, "/act/rebuild")
        .header("content-type", "application/json")
        .body("{}");
    assert_eq!(site.send(json).await.status, 415);
    let long = site
        .request(Method::POST, "/auth/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("x".repeat(100_000));
    assert_eq!(site.send(long).await.status, 413);
}

#[tokio::test]
async fn builders_rebuild_cancel_and_approve() {
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    // Nobody may, before logging in.
    assert_eq!(
        site.post("/act/rebuild", &[]).await.to(),
        (303, "/auth/login")
    );
    site.log_in("admin").await;
    let page = site.get("/me/app/ref/heads/feature/x").await;
    let (token, start) = (page.token(), page.text.find("/log/rebuild/").unwrap());
    let path = page.text[start..].split('"').next().unwrap().to_owned();
    for bad in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil",
        "javascript:x",
    ] {
        let answer = site
            .post(&path, &[("CSRFToken", &token), ("redirect", bad)])
            .await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    assert!(
        site.post(&path, &[("CSRFToken", &token)])
            .await
            .shown()
            .contains("Missing redirect")
    );
    let answer = site
        .post(&path, &[("CSRFToken", &token), ("redirect", "/branch")])
        .await;
    assert_eq!(answer.to(), (303, "/branch"));
    let result = path.strip_prefix("/log/rebuild/").unwrap();
    let files = shop.client.head(&branch(result)).await.unwrap().unwrap();
    let files = shop
        .client
        .list(
            &datakit::client::At::Commit(files),
            &datakit::model::TreePath::root(),
            false,
        )
        .await
        .unwrap();
    assert!(
        files
            .iter()
            .any(|item| item.path.as_bytes() == layout::REBUILD_REQUESTED.as_bytes())
    );
    let none = site
        .post("/log/rebuild/none?redirect=/", &[("CSRFToken", &token)])
        .await;
    assert!(none.status == 404 && none.shown().contains("No job depends on"));
    // What is being built can be stopped, nothing else.
    let answer = site
        .post(&format!("/cancel/{}", growing()), &[("CSRFToken", &token)])
        .await;
    assert_eq!(answer.to(), (303, "/"));
    let master = site.get("/me/app/ref/heads/master").await.text;
    let start = master.find("/log/rebuild/").unwrap() + "/log/rebuild/".len();
    let ended = master[start..].split('"').next().unwrap();
    let not = site
        .post(&format!("/cancel/{ended}"), &[("CSRFToken", &token)])
        .await;
    assert!(not.status == 404 && not.shown().contains("is not currently building"));
    // Who approved is a commit.
    let sha = sha(3);
    let fields = [
        ("target", "me/app/pr/7"),
        ("commit", sha.as_str()),
        ("redirect", "/me/app/pr/7"),
        ("CSRFToken", token.as_str()),
    ];
    assert_eq!(
        site.post("/act/approve", &fields).await.to(),
        (303, "/me/app/pr/7")
    );
    let head = shop.client.head(&branch("dk-ci")).await.unwrap().unwrap();
    let commit = shop.client.commit(&head).await.unwrap();
    assert_eq!(commit.author.name, b"admin");
    assert!(String::from_utf8_lossy(&commit.message).contains("Approve me/app/pr/7"));
    for (what, of) in [
        ("nothing", "me/app/pr/7"),
        ("rebuild", "nonsense"),
        ("rebuild", "me/app/pr/8"),
    ] {
        let fields = [
            ("target", of),
            ("redirect", "/"),
            ("CSRFToken", token.as_str()),
        ];
        let answer = site.post(&format!("/act/{what}"), &fields).await;
        assert!(
            answer.status == 404 || answer.status == 400,
            "{what} {of}: {}",
            answer.status
        );
    }
}

/// GitHub, as far as a login needs it.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
}

async fn fake(State(fake): State<Arc<Fake>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 10_000).await.unwrap();
    let body = String::from_utf8_lossy(&body).into_owned();
    let token = parts
        .headers
        .get("authorization")
        .map_or("", |value| value.to_str().unwrap());
    let path = parts.uri.path();
    fake.asked.lock().unwrap().push(format!("{path} {body}"));
    let right = token == "Bearer gho_secret";
    match path {
        "/login/oauth/access_token" if body.contains("code=good") => {
            r#"{"access_token":"gho_secret","scope":"","token_type":"bearer"}"#.into_response()
        }
        "/login/oauth/access_token" => {
            r#"{"error":"bad_verification_code","error_description":"The code is wrong"}"#
                .into_response()
        }
        "/user" if right => r#"{"login":"Ann","id":1}"#.into_response(),
        "/user/orgs" if right => r#"[{"login":"Acme"}]"#.into_response(),
        "/repos/me/app" if right => r#"{"full_name":"me/app"}"#.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

#[tokio::test]
async fn github_says_who_somebody_is() {
    let github = Arc::new(Fake::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new()
        .fallback(fake)
        .with_state(Arc::clone(&github));
    let served = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let site = Site::with(
        &stocked().await,
        |settings| {
            settings.github = Endpoints {
                site: at.clone(),
                api: at,
            };
            settings.web.can_read = vec![
                Who::User("admin".into()),
                Who::Readers("me/app".parse().unwrap()),
            ];
            settings.web.can_build = vec![Who::Organisation("acme".into())];
        },
        None,
    )
    .await;
    // Not configured yet.
    site.get("/auth/login").await;
    assert!(
        site.get("/auth/github-callback")
            .await
            .shown()
            .contains("Missing state")
    );
    site.log_in("admin").await;
    let token = site.get("/settings/github-auth").await.token();
    let save = |fields: [(&'static str, &'static str); 3]| {
        let (site, token) = (&site, token.clone());
        async move {
            let mut fields = fields.to_vec();
            fields.push(("CSRFToken", &token));
            site.post("/settings/github-auth", &fields).await
        }
    };
    let told = save([
        ("client-id", ""),
        ("client-secret", "s3cret"),
        ("callback", ""),
    ])
    .await;
    assert!(told.status == 400 && !told.text.contains("s3cret"));
    assert_eq!(
        save([("client-id", "id"), ("client-secret", ""), ("callback", "")])
            .await
            .status,
        400
    );
    assert_eq!(
        save([
            ("client-id", "id"),
            ("client-secret", "s3cret"),
            ("callback", "x")
        ])
        .await
        .status,
        400
    );
    let saved = save([
        ("client-id", "the-id"),
        ("client-secret", "s3cret"),
        ("callback", ""),
    ])
    .await;
    assert_eq!(saved.to(), (303, "/auth/login"));
    let shown = site.get("/settings/github-auth").await.text;
    assert!(shown.contains("the-id") && !shown.contains("s3cret"));

    site.forget();
    site.get("/me/app/pr/7").await;
    let page = site.get("/auth/login").await;
    let start = page.text.find("/login/oauth/authorize?").expect("a link");
    let link = page.text[start..]
        .split('"')
        .next()
        .unwrap()
        .replace("&amp;", "&");
    assert!(
        link.contains("client_id=the-id") && link.contains("scope=read%3Aorg%2Crepo"),
        "{link}"
    );
    let state = link
        .split("state=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    for (query, told) in [
        ("?state=wrong&code=good".to_owned(), "Incorrect state"),
        (format!("?state={state}"), "Missing code"),
        (format!("?state={state}&code=bad"), "The code is wrong"),
    ] {
        let answer = site.get(&format!("/auth/github-callback{query}")).await;
        assert!(
            answer.status == 403 && answer.shown().contains(told),
            "{}",
            answer.shown()
        );
    }
    let answer = site
        .get(&format!("/auth/github-callback?state={state}&code=good"))
        .await;
    assert_eq!(answer.to(), (303, "/me/app/pr/7"));
    let page = site.get("/me/app/pr/7").await;
    assert!(
        page.status == 200
            && page.text.contains("github:Ann")
            && page.text.contains("Let 0000000000 run")
    );
    assert!(!page.text.contains("gho_secret"));
    // A callback cannot be used twice: the session, and its token, are new.
    assert_eq!(
        site.get(&format!("/auth/github-callback?state={state}&code=good"))
            .await
            .status,
        403
    );
    let asked = github.asked.lock().unwrap().join("\n");
    assert!(asked.contains("client_secret=s3cret") && asked.contains("/repos/me/app"));
    served.abort();
}
