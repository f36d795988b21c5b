//! Pages behind a certificate of one's own.

use datakit::ci::web::Certificate;

#[cfg(feature = "https")]
#[tokio::test]
async fn pages_are_served_with_a_certificate() {
    use super::site::*;
    use datakit::ci::web::{App, Door};
    use std::sync::Arc;

    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (
        folder.path().join("server.crt"),
        folder.path().join("server.key"),
    );
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let certificate = Certificate::read(&chain, &key).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("https://localhost:{port}");
    let shop = stocked().await;
    let app = App::new(shop.client, settings(&url, folder.path()), None);
    let door = Door::open(listener, Some(certificate)).unwrap();
    let task = tokio::spawn(datakit::ci::web::serve(Arc::new(app), door));
    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([trusted])
        .resolve("localhost", ([127, 0, 0, 1], port).into())
        .build()
        .unwrap();
    // Somebody who never says anything holds up nobody.
    let _silent = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let answer = client.get(format!("{url}/healthz")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("strict-transport-security"));
    task.abort();
    // The two do not belong together.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    assert!(Certificate::read(&chain, &key).is_err());
}

#[test]
fn a_certificate_that_cannot_be_read_is_named() {
    let none = std::path::Path::new("/nowhere/server.crt");
    let error = Certificate::read(none, none).unwrap_err().to_string();
    assert!(
        error.contains("server.crt") || error.contains("without https"),
        "{error}"
    );
}
