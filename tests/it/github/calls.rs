//! The calls our GitHub answers.

use axum::http::HeaderMap;
use datakit::forge::*;
use datakit::model::TreePath;
use serde_json::{Value, json};

use super::{Answer, Told, World, answers, header, hooks};

/// A call as it came in.
pub struct Call<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a [(String, String)],
    pub body: &'a [u8],
    pub headers: &'a HeaderMap,
}

impl Call<'_> {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.headers, name)
    }

    pub fn whole(&self) -> String {
        let query: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        match query.is_empty() {
            true => self.path.into(),
            false => format!("{}?{}", self.path, query.join("&")),
        }
    }

    /// The repository it is about, and the rest of the path.
    pub fn repo(&self) -> Option<(Repo, &str)> {
        let rest = self.path.strip_prefix("/repos/")?;
        let (user, rest) = rest.split_once('/')?;
        let end = rest.find('/').unwrap_or(rest.len());
        Some((Repo::new(user, &rest[..end])?, &rest[end..]))
    }

    /// The same where the repository is given by its number.
    pub fn numbered(&self, world: &World) -> Option<(Repo, &str)> {
        let rest = self.path.strip_prefix("/repositories/")?;
        let end = rest.find('/').unwrap_or(rest.len());
        let number: u64 = rest[..end].parse().ok()?;
        let repo = world
            .is
            .repos
            .iter()
            .find(|repo| world.number(repo) == number)?;
        Some((repo.clone(), &rest[end..]))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(self.body).unwrap_or_default()
    }
}

/// Undoes the escapes of a URL.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        match (first, more) {
            (b'%', [a, b, more @ ..]) => {
                let digits = std::str::from_utf8(&[*a, *b]).unwrap().to_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                rest = more;
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

impl World {
    pub(super) fn answer(&mut self, call: &Call<'_>, told: &mut Vec<Told>) -> Answer {
        let token = call
            .header("authorization")
            .and_then(|text| text.strip_prefix("Bearer "));
        if let Some(answer) = self.as_app(call, token) {
            return answer;
        }
        let known = match (&self.app, &self.token) {
            (Some(app), _) => token.is_some_and(|token| app.tokens.contains_key(token)),
            (None, Some(wanted)) => token == Some(wanted),
            (None, None) => true,
        };
        if !known {
            return Answer::error(401, "Bad credentials");
        }
        if let Some(rest) = call
            .path
            .strip_prefix("/orgs/")
            .or_else(|| call.path.strip_prefix("/users/"))
        {
            let (account, rest) = rest.split_once('/').unwrap_or((rest, ""));
            return self.of_account(call, account, rest);
        }
        if call.path == "/installation/repositories" {
            let app = self.app.as_ref().unwrap();
            let account = app.tokens[token.unwrap()].clone();
            let repos: Vec<Repo> = self
                .is
                .repos
                .iter()
                .filter(|repo| repo.user() == account)
                .cloned()
                .collect();
            let all: Vec<Value> = repos
                .iter()
                .map(|repo| answers::whole_repository(repo, self.number(repo)))
                .collect();
            return Answer::within(json!({ "total_count": all.len() }), "repositories", all);
        }
        let Some((repo, rest)) = call.repo().or_else(|| call.numbered(self)) else {
            return Answer::error(404, "Not Found");
        };
        if let Some((status, message)) = self.broken.get(&repo.to_string()) {
            return Answer::error(*status, message);
        }
        if let Some(new) = self.renamed.get(&repo) {
            let status = if call.method == "GET" { 301 } else { 307 };
            let mut answer = Answer::error(status, "Moved Permanently");
            let at = format!("/repositories/{}{rest}", self.number(new));
            answer.headers.push(("location", at));
            return answer;
        }
        if !self.is.repos.contains(&repo) {
            return Answer::error(404, "Not Found");
        }
        let steps: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        self.of_repo(call, &repo, &steps, told)
    }

    fn of_account(&mut self, call: &Call<'_>, account: &str, rest: &str) -> Answer {
        if let Some((status, message)) = self.broken.get(account) {
            return Answer::error(*status, message);
        }
        let is_org = self.organisations.contains(account);
        if call.path.starts_with("/orgs/") && !is_org {
            return Answer::error(404, "Not Found");
        }
        match rest.split_once('/') {
            None if rest == "repos" => {
                let repos: Vec<Repo> = self
                    .is
                    .repos
                    .iter()
                    .filter(|repo| repo.user() == account)
                    .cloned()
                    .collect();
                let shown = repos.iter().map(|repo| {
                    answers::repository(repo, self.number(repo), self.archived.contains(repo))
                });
                Answer::list(shown.collect())
            }
            _ => {
                let steps: Vec<&str> = rest.split('/').collect();
                self.of_hooks(call, account, &steps)
            }
        }
    }

    fn of_repo(
        &mut self,
        call: &Call<'_>,
        repo: &Repo,
        steps: &[&str],
        told: &mut Vec<Told>,
    ) -> Answer {
        let missing = || Answer::error(404, "Not Found");
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        match (call.method, steps) {
            (_, ["hooks", ..]) => self.of_hooks(call, &repo.to_string(), steps),
            ("GET", ["pulls"]) => {
                let key = (repo.clone(), 0)..=(repo.clone(), u64::MAX);
                let open = self
                    .is
                    .prs
                    .range(key)
                    .filter(|(_, pr)| pr.state == PrState::Open);
                Answer::list(
                    open.map(|((repo, number), pr)| answers::pull(repo, *number, pr, false))
                        .collect(),
                )
            }
            ("GET", ["pulls", id]) => match self.is.prs.get(&(repo.clone(), number(id))) {
                Some(pr) => Answer::new(200, answers::pull(repo, number(id), pr, true)),
                None => missing(),
            },
            ("PATCH", ["pulls", id]) => {
                let key = (repo.clone(), number(id));
                let Some(pr) = self.is.prs.get_mut(&key) else {
                    return missing();
                };
                let body = call.json();
                if pr.state == PrState::Closed && body.get("base").is_some() {
                    return Answer::error(
                        422,
                        "Validation Failed: cannot change the base of a closed pull request",
                    );
                }
                if let Some(title) = body["title"].as_str() {
                    pr.title = title.trim().into();
                }
                if let Some(base) = body["base"].as_str() {
                    pr.base = base.into();
                }
                match body["state"].as_str() {
                    Some("open") => (pr.state, pr.closed_at) = (PrState::Open, None),
                    Some(_) => (pr.state, pr.closed_at) = (PrState::Closed, Some(now())),
                    None => (),
                }
                let pr = pr.clone();
                told.push(hooks::pull_request(repo, key.1, &pr, "edited"));
                Answer::new(200, answers::pull(repo, key.1, &pr, true))
            }
            ("GET", ["pulls", id, "reviews"]) => {
                let all = self.reviews.get(&(repo.clone(), number(id)));
                let shown = all.into_iter().flatten().zip(1..);
                Answer::list(
                    shown
                        .map(|((who, state), id)| answers::review(id, who, state))
                        .collect(),
                )
            }
            ("GET", ["issues", "comments"]) => {
                let of = (repo.clone(), 0)..=(repo.clone(), u64::MAX);
                let prs = self.is.prs.range(of);
                let mut all: Vec<(u64, &Comment)> = prs
                    .flat_map(|((_, number), pr)| {
                        let said = pr.comments.iter().filter(|comment| comment.id != 0);
                        said.map(|comment| (*number, comment))
                    })
                    .collect();
                all.sort_by_key(|(_, comment)| comment.id);
                let shown = all.into_iter();
                let shown = shown.map(|(number, comment)| answers::comment(repo, number, comment));
                Answer::list(shown.collect())
            }
            ("PATCH", ["issues", "comments", id]) => {
                let id = number(id);
                let of = (repo.clone(), 0)..=(repo.clone(), u64::MAX);
                let mut all = self.is.prs.range_mut(of);
                let found = all.find_map(|((_, number), pr)| {
                    let mut said = pr.comments.iter_mut();
                    Some((*number, said.find(|comment| comment.id == id && id != 0)?))
                });
                let Some((number, comment)) = found else {
                    return missing();
                };
                let body = call.json()["body"].as_str().unwrap_or_default().to_owned();
                if body.trim().is_empty() {
                    return Answer::error(422, "Validation Failed: body cannot be blank");
                }
                comment.body = body.into();
                let answer = answers::comment(repo, number, comment);
                told.push(hooks::comment(repo, number));
                Answer::new(200, answer)
            }
            ("GET", ["issues", id, "comments"]) => {
                match self.is.prs.get(&(repo.clone(), number(id))) {
                    Some(pr) => {
                        let said = pr.comments.iter().skip(1);
                        let shown = said.map(|one| answers::comment(repo, number(id), one));
                        Answer::list(shown.collect())
                    }
                    None => missing(),
                }
            }
            ("POST", ["issues", id, "comments"]) => {
                let new = self.id();
                let key = (repo.clone(), number(id));
                let Some(pr) = self.is.prs.get_mut(&key) else {
                    return missing();
                };
                let body = call.json()["body"].as_str().unwrap_or_default().to_owned();
                let comment = Comment {
                    id: new,
                    user: "bot".into(),
                    body: body.into(),
                };
                pr.comments.push(comment.clone());
                told.push(hooks::comment(repo, key.1));
                Answer::new(201, answers::comment(repo, key.1, &comment))
            }
            ("GET", ["git", "matching-refs", kind, ..]) => {
                let prefix = format!("{kind}/");
                let all: Vec<(RefName, Sha)> = self.refs(repo).collect();
                let shown = all
                    .iter()
                    .filter(|(name, _)| name.as_bytes().starts_with(prefix.as_bytes()));
                Answer::list(
                    shown
                        .map(|(name, sha)| answers::reference(name, self.kind(sha), sha))
                        .collect(),
                )
            }
            (method, ["git", "ref" | "refs", name @ ..]) if !name.is_empty() => {
                let name = TreePath::new(unescaped(&name.join("/"))).unwrap();
                self.of_ref(method, call, repo, &name, told)
            }
            ("POST", ["git", "refs"]) => {
                let body = call.json();
                let name = body["ref"]
                    .as_str()
                    .and_then(|name| name.strip_prefix("refs/"))
                    .unwrap();
                let name = TreePath::new(name).unwrap();
                let sha = body["sha"].as_str().unwrap();
                if self.is.refs.contains_key(&(repo.clone(), name.clone())) {
                    return Answer::error(422, "Reference already exists");
                }
                self.is.add_ref(repo, &name, sha.into());
                told.push(hooks::push(repo, &name, Some(sha)));
                Answer::new(201, answers::reference(&name, "commit", sha))
            }
            ("GET", ["tags"]) => {
                let all = self.refs(repo).filter_map(|(name, sha)| {
                    let name = name.to_string();
                    let name = name.strip_prefix("tags/")?;
                    Some(answers::tagged(name, &self.peeled(&sha)?))
                });
                Answer::list(all.collect())
            }
            ("GET", ["git", "tags", sha]) => match self.objects.get(*sha) {
                Some((kind, target)) => Answer::new(200, answers::tag(sha, kind, target)),
                None => missing(),
            },
            ("GET", ["commits", sha, "status"]) => {
                let from = (repo.clone(), (*sha).to_owned(), TreePath::root());
                let all = self
                    .is
                    .statuses
                    .range(from..)
                    .take_while(|((of, at, _), _)| of == repo && at == sha);
                let all = all
                    .zip(1..)
                    .map(|(((.., at), status), id)| answers::status(id, at, status));
                Answer::within(
                    answers::combined(repo, sha, Vec::new()),
                    "statuses",
                    all.collect(),
                )
            }
            ("POST", ["statuses", sha]) => {
                let body = call.json();
                let state = StatusState::ALL
                    .into_iter()
                    .find(|state| body["state"] == state.word())
                    .unwrap();
                let description = body["description"].as_str();
                if description.is_some_and(|text| text.chars().count() > DESCRIPTION) {
                    return Answer::error(422, "Validation Failed: description is too long");
                }
                let status = Status::new(state, description, body["target_url"].as_str());
                let context = context(body["context"].as_str().unwrap_or_default()).unwrap();
                self.is.add_status(repo, sha, &context, status.clone());
                told.push(hooks::status(repo, sha, &context, &status));
                let mut made = answers::made("status", json!({}));
                super::schema::overlay(&mut made, answers::status(1, &context, &status));
                Answer::new(201, made)
            }
            ("POST", ["check-runs"]) => {
                let id = self.id();
                self.checks.insert(id, call.json());
                Answer::new(201, check_run(id, &self.checks[&id]))
            }
            ("PATCH", ["check-runs", id]) => match self.checks.get_mut(&number(id)) {
                Some(run) => {
                    super::schema::overlay(run, call.json());
                    Answer::new(200, check_run(number(id), run))
                }
                None => missing(),
            },
            _ => missing(),
        }
    }

    fn refs<'a>(&'a self, repo: &'a Repo) -> impl Iterator<Item = (RefName, Sha)> + 'a {
        let from = (repo.clone(), TreePath::root());
        let all = self
            .is
            .refs
            .range(from..)
            .take_while(move |((of, _), _)| of == repo);
        all.map(|((_, name), sha)| (name.clone(), sha.clone()))
    }

    /// The commit an object leads to.
    fn peeled(&self, sha: &str) -> Option<Sha> {
        match (self.kind(sha), self.objects.get(sha)) {
            ("commit", _) => Some(sha.into()),
            ("tag", Some((_, target))) => self.peeled(target),
            _ => None,
        }
    }

    fn kind(&self, sha: &str) -> &'static str {
        match sha.split_once('-') {
            Some(("tag", _)) => "tag",
            Some(("tree", _)) => "tree",
            _ => "commit",
        }
    }

    fn of_ref(
        &mut self,
        method: &str,
        call: &Call<'_>,
        repo: &Repo,
        name: &RefName,
        told: &mut Vec<Told>,
    ) -> Answer {
        let key = (repo.clone(), name.clone());
        let Some(old) = self.is.refs.get(&key).cloned() else {
            return match method {
                "GET" => Answer::error(404, "Not Found"),
                _ => Answer::error(422, "Reference does not exist"),
            };
        };
        match method {
            "GET" => Answer::new(200, answers::reference(name, self.kind(&old), &old)),
            "DELETE" => {
                self.is.refs.remove(&key);
                told.push(hooks::push(repo, name, None));
                Answer::new(204, Value::Null)
            }
            _ => {
                let body = call.json();
                let new = body["sha"].as_str().unwrap().to_owned();
                let forward = self.forward.contains(&(old, new.clone()));
                if !forward && body["force"] != true {
                    return Answer::error(422, "Update is not a fast forward");
                }
                self.is.add_ref(repo, name, new.clone());
                told.push(hooks::push(repo, name, Some(&new)));
                Answer::new(200, answers::reference(name, "commit", &new))
            }
        }
    }
}

pub fn now() -> String {
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let time = jiff::Timestamp::from_second(time.as_secs() as i64).unwrap();
    time.to_string()
}

fn check_run(id: u64, asked: &Value) -> Value {
    let mut made = answers::made("check-run", json!({ "id": id }));
    for name in [
        "name",
        "head_sha",
        "status",
        "external_id",
        "details_url",
        "conclusion",
    ] {
        if let Some(value) = asked.get(name) {
            made[name] = value.clone();
        }
    }
    super::schema::overlay(&mut made["output"], asked["output"].clone());
    made
}
