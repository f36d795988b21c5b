//! What our GitHub tells by itself, to whom, and what an App is given.

use std::sync::Mutex;
use std::time::SystemTime;

use base64::Engine as _;
use datakit::forge::*;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::calls::Call;
use super::{Answer, Delivered, GitHub, Hook, Told, World, answers};

/// Signs a payload as GitHub does.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    let hash = mac.finalize().into_bytes();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

fn payload(repo: &Repo, with: Value) -> Value {
    let mut payload = json!({
        "repository": answers::whole_repository(repo, 1),
        "sender": answers::user("somebody"),
    });
    super::schema::overlay(&mut payload, with);
    payload
}

pub fn pull_request(repo: &Repo, number: u64, pr: &Pr, action: &str) -> Told {
    let pull = answers::pull(repo, number, pr, true);
    let with = json!({ "action": action, "number": number, "pull_request": pull });
    (repo.clone(), "pull_request", payload(repo, with))
}

pub fn comment(repo: &Repo, number: u64) -> Told {
    let issue = json!({ "number": number, "pull_request": {} });
    let with = json!({ "action": "created", "issue": issue, "comment": {} });
    (repo.clone(), "issue_comment", payload(repo, with))
}

pub fn push(repo: &Repo, name: &RefName, head: Option<&str>) -> Told {
    let zero = "0".repeat(40);
    let with = json!({
        "ref": format!("refs/{name}"),
        "after": head.unwrap_or(&zero),
        "deleted": head.is_none(),
        "head_commit": head.map(|id| json!({ "id": id })),
    });
    (repo.clone(), "push", payload(repo, with))
}

pub fn status(repo: &Repo, sha: &str, context: &Context, status: &Status) -> Told {
    let with = json!({
        "sha": sha,
        "state": status.state.word(),
        "description": status.description,
        "target_url": status.target_url,
        "context": context.to_string(),
    });
    (repo.clone(), "status", payload(repo, with))
}

pub fn rerequested(repo: &Repo, sha: &str, name: &str) -> Told {
    let run = json!({ "head_sha": sha, "name": name, "external_id": name });
    let with = json!({ "action": "rerequested", "check_run": run });
    (repo.clone(), "check_run", payload(repo, with))
}

pub fn repository(repo: &Repo) -> Told {
    (
        repo.clone(),
        "repository",
        payload(repo, json!({ "action": "created" })),
    )
}

/// Tells an event to whoever has a hook for it; keeps what came of it.
pub async fn deliver(world: &Mutex<World>, repo: &Repo, event: &'static str, payload: Value) {
    let hooks: Vec<(u64, Hook, Delivered, bool)> = {
        let mut world = world.lock().unwrap();
        let of = |hook: &Hook| hook.of == repo.to_string() || hook.of == repo.user();
        let wants = |hook: &Hook| hook.active && hook.events.iter().any(|known| known == event);
        let fit = world
            .hooks
            .iter()
            .filter(|(_, hook)| of(hook) && wants(hook));
        let fit: Vec<(u64, Hook)> = fit.map(|(id, hook)| (*id, hook.clone())).collect();
        let lose = world.lose;
        let made = fit.into_iter().map(|(number, hook)| {
            let id = world.id();
            let delivery = Delivered {
                id,
                guid: format!("guid-{id}"),
                event: event.into(),
                payload: payload.clone(),
                status: 0,
            };
            (number, hook, delivery, lose)
        });
        made.collect()
    };
    for (number, hook, mut delivery, lose) in hooks {
        if !lose {
            let body = delivery.payload.to_string();
            let sent = reqwest::Client::new()
                .post(&hook.url)
                .header("x-github-event", event)
                .header("x-github-delivery", &delivery.guid)
                .header("x-hub-signature-256", sign(&hook.secret, body.as_bytes()))
                .body(body)
                .send()
                .await;
            delivery.status = sent.map_or(502, |answer| answer.status().as_u16());
        }
        let mut world = world.lock().unwrap();
        if let Some(hook) = world.hooks.get_mut(&number) {
            hook.deliveries.push(delivery);
        }
    }
}

impl GitHub {
    /// Tells something, and waits until it was delivered or lost.
    pub async fn tell(&self, (repo, event, payload): Told) {
        deliver(&self.world, &repo, event, payload).await;
    }
}

impl World {
    /// The calls about hooks, of a repository or an organisation.
    pub(super) fn of_hooks(&mut self, call: &Call<'_>, of: &str, steps: &[&str]) -> Answer {
        let schema = if of.contains('/') { "hook" } else { "org-hook" };
        let shown = |id: u64, hook: &Hook| {
            let config = json!({ "url": hook.url, "content_type": "json", "secret": "********" });
            let with = json!({ "id": id, "name": "web", "active": hook.active, "events": hook.events, "config": config });
            answers::made(schema, with)
        };
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        let take = |hook: &mut Hook, body: &Value| {
            if let Some(url) = body["config"]["url"].as_str() {
                hook.url = url.into();
            }
            if let Some(secret) = body["config"]["secret"].as_str() {
                hook.secret = secret.into();
            }
            let events = body["events"].as_array().into_iter().flatten();
            hook.events = events.map(|event| event.as_str().unwrap().into()).collect();
            hook.active = body["active"] == true;
        };
        if self.unhooked {
            return Answer::error(404, "Not Found");
        }
        match (call.method, steps) {
            ("GET", ["hooks"]) => {
                let ours = self.hooks.iter().filter(|(_, hook)| hook.of == of);
                Answer::list(ours.map(|(id, hook)| shown(*id, hook)).collect())
            }
            ("POST", ["hooks"]) => {
                let id = self.id();
                let mut hook = Hook {
                    of: of.into(),
                    ..Hook::default()
                };
                take(&mut hook, &call.json());
                let answer = Answer::new(201, shown(id, &hook));
                self.hooks.insert(id, hook);
                answer
            }
            ("PATCH", ["hooks", id]) => match self.hooks.get_mut(&number(id)) {
                Some(hook) => {
                    take(hook, &call.json());
                    Answer::new(200, shown(number(id), hook))
                }
                None => Answer::error(404, "Not Found"),
            },
            ("DELETE", ["hooks", id]) => match self.hooks.remove(&number(id)) {
                Some(_) => Answer::new(204, Value::Null),
                None => Answer::error(404, "Not Found"),
            },
            ("GET", ["hooks", id, "deliveries", rest @ ..]) => {
                let Some(hook) = self.hooks.get(&number(id)) else {
                    return Answer::error(404, "Not Found");
                };
                let made = |schema, delivery: &Delivered| {
                    let with = json!({
                        "id": delivery.id,
                        "guid": delivery.guid,
                        "event": delivery.event,
                        "status_code": delivery.status,
                        "status": if delivery.status == 204 { "OK" } else { "Invalid HTTP Response" },
                    });
                    answers::made(schema, with)
                };
                match rest {
                    [] => {
                        let newest = hook.deliveries.iter().rev();
                        Answer::list(newest.map(|one| made("hook-delivery-item", one)).collect())
                    }
                    [wanted, ..] => {
                        match hook.deliveries.iter().find(|one| one.id == number(wanted)) {
                            Some(one) => {
                                let mut whole = made("hook-delivery", one);
                                whole["request"]["payload"] = one.payload.clone();
                                Answer::new(200, whole)
                            }
                            None => Answer::error(404, "Not Found"),
                        }
                    }
                }
            }
            _ => Answer::error(404, "Not Found"),
        }
    }

    /// What an App asks as itself.
    pub(super) fn as_app(&mut self, call: &Call<'_>, token: Option<&str>) -> Option<Answer> {
        let found = call.path.ends_with("/installation");
        let granted = call.path.starts_with("/app/installations/");
        if !found && !granted {
            return None;
        }
        let account = call.path.split('/').nth(2).unwrap_or_default().to_owned();
        let Some(app) = &self.app else {
            return Some(Answer::error(404, "Not Found"));
        };
        let claims = token.and_then(|token| {
            let part = token.split('.').nth(1)?;
            let text = base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(part)
                .ok()?;
            serde_json::from_slice::<Value>(&text).ok()
        });
        let claims = claims.unwrap_or_default();
        #[cfg(feature = "https")]
        if !token.is_some_and(is_signed_by_the_app) {
            return Some(Answer::error(401, "A JSON web token could not be decoded"));
        }
        let lasts =
            claims["exp"].as_u64().unwrap_or_default() - claims["iat"].as_u64().unwrap_or_default();
        if claims["iss"] != *app.id || lasts > 600 {
            return Some(Answer::error(401, "A JSON web token could not be decoded"));
        }
        if found {
            if call.path.starts_with("/orgs/") && !self.organisations.contains(&account) {
                return Some(Answer::error(404, "Not Found"));
            }
            // The number of an installation says whose it is.
            let id = account
                .bytes()
                .fold(0u64, |id, byte| id * 256 + u64::from(byte));
            return Some(Answer::new(
                200,
                answers::made("installation", json!({ "id": id })),
            ));
        }
        let id: u64 = account_of(call.path);
        let bytes = id.to_be_bytes();
        let account =
            String::from_utf8(bytes.iter().copied().filter(|byte| *byte != 0).collect()).unwrap();
        let number = self.id();
        let app = self.app.as_mut().unwrap();
        let token = format!("ghs_{number}");
        app.tokens.insert(token.clone(), account);
        let ends = jiff::Timestamp::try_from(SystemTime::now() + app.life).unwrap();
        let with = json!({ "token": token, "expires_at": ends.to_string() });
        Some(Answer::new(201, answers::made("installation-token", with)))
    }
}

/// Tells whether a JWT is signed with the key of the tests (RS256).
#[cfg(feature = "https")]
fn is_signed_by_the_app(token: &str) -> bool {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let pem = include_str!("../../data/github/app-key.pem");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = ring::rsa::KeyPair::from_der(&STANDARD.decode(body).unwrap()).unwrap();
    let (text, signature) = token.rsplit_once('.').unwrap_or_default();
    let kind = &ring::signature::RSA_PKCS1_2048_8192_SHA256;
    let public = ring::signature::UnparsedPublicKey::new(kind, pair.public().as_ref().to_vec());
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    public.verify(text.as_bytes(), &signature).is_ok()
}

fn account_of(path: &str) -> u64 {
    path.split('/').nth(3).unwrap().parse().unwrap()
}
