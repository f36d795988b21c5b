//! The whole of a file: what its parts say of each other.

use std::collections::{BTreeMap, BTreeSet};

use super::file::{
    EngineFile, OneOrMore, ProjectTable, SecretTable, StepTable, Table, TreeFile, WebTable,
};
use super::place::{At, Faults, Invalid};
use super::{
    Config, Grant, Keep, Project, Reserved, Source, Step, Steps, Targets, Untrusted, Web, Who,
    graph, step,
};
use crate::forge::{self, Repo};
use crate::model::text::amount;
use crate::model::{BranchName, TreePath};

/// Steps that a file may describe.
const MAX_STEPS: usize = 1000;

pub(super) fn engine(text: &str, file: EngineFile) -> Result<Config, Invalid> {
    let mut faults = Faults::new(text);
    let metadata = file.metadata_branch.as_ref();
    let metadata_branch = metadata
        .and_then(|name| faults.keep(name.span(), BranchName::new(name.get())))
        .unwrap_or_else(|| BranchName::new("github-metadata").expect("legal"));
    let status_prefix = file
        .status_prefix
        .as_ref()
        .and_then(|prefix| {
            let read = TreePath::new(prefix.get())
                .ok()
                .filter(|path| !path.is_root());
            let refused = || format!("{:?} is no context of a status", prefix.get());
            faults.keep(prefix.span(), read.ok_or_else(refused))
        })
        .unwrap_or_else(|| forge::context("ci/datakit").expect("legal"));
    let pools = pools(&mut faults, &file.pool);
    let web = web(&mut faults, &file.web);
    let mut projects: Vec<Project> = Vec::new();
    for table in &file.project {
        let known: BTreeSet<&Repo> = projects.iter().map(|project| &project.repo).collect();
        if let Some(project) = project(&mut faults, table, &pools, &known) {
            projects.push(project);
        }
    }
    let also = projects.iter().flat_map(|project| match &project.steps {
        Source::Here(steps) => steps.iter().flat_map(|step| step.also.clone()).collect(),
        Source::Tree { reserved, .. } => {
            let each = reserved.values().flat_map(|one| one.also.clone());
            each.collect::<Vec<_>>()
        }
    });
    let also: BTreeSet<_> = also.map(|also| also.repo).collect();
    for repo in also {
        if !projects.iter().any(|project| project.repo == repo) {
            let message = format!("{repo} is depended on (also) but is no project here");
            faults.add(place_of(text, &repo), message);
        }
    }
    let config = Config {
        metadata_branch,
        status_prefix,
        pools,
        web,
        projects,
    };
    faults.finish(config)
}

/// Where a repository is named last, which is at an `also` if only there.
fn place_of(text: &str, repo: &Repo) -> std::ops::Range<usize> {
    let name = format!("\"{repo}\"");
    let start = text.rfind(&name).unwrap_or(0);
    start..start + name.len()
}

pub(super) fn tree(text: &str, file: TreeFile, reserved: &Reserved) -> Result<Steps, Invalid> {
    let mut faults = Faults::new(text);
    let steps = steps(&mut faults, &file.step, Some(reserved));
    if file.step.0.is_empty() {
        faults.add(0..0, "there are no steps");
    }
    faults.finish(steps)
}

/// Reads steps and puts them in order.
fn steps(faults: &mut Faults<'_>, table: &Table<At<StepTable>>, file: Option<&Reserved>) -> Steps {
    let table = &table.0;
    if let Some((name, _)) = table.get(MAX_STEPS) {
        faults.add(name.span(), format!("more than {MAX_STEPS} steps"));
        return Steps::default();
    }
    let read = table
        .iter()
        .map(|(name, table)| step::read(faults, name, table, file));
    let steps: Vec<Step> = read.collect();
    let known: BTreeSet<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    for (_, table) in table {
        let mut seen = BTreeSet::new();
        for need in table.get().needs.iter().flat_map(|list| &list.0) {
            if !known.contains(need.get().as_str()) {
                faults.add(need.span(), format!("there is no step {:?}", need.get()));
            }
            if !seen.insert(need.get()) {
                faults.add(need.span(), format!("{:?} is there twice", need.get()));
            }
        }
    }
    colliding_outputs(faults, table, &steps);
    let needs = steps.iter().map(|step| {
        let needs = step.needs.iter().map(String::as_str).collect();
        (step.name.as_str(), needs)
    });
    match graph::order(&needs.collect::<Vec<_>>()) {
        Ok(order) => {
            let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
            Steps(
                order
                    .iter()
                    .filter_map(|step| steps[*step].take())
                    .collect(),
            )
        }
        Err(cycle) => {
            let names: Vec<&str> = cycle
                .iter()
                .chain(cycle.first())
                .map(|step| steps[*step].name.as_str())
                .collect();
            if let Some((name, _)) = cycle.first().and_then(|first| table.get(*first)) {
                let message = format!("steps need each other: {}", names.join(" needs "));
                faults.add(name.span(), message);
            }
            Steps::default()
        }
    }
}

/// Refuses needs whose outputs would lie on top of each other.
fn colliding_outputs(
    faults: &mut Faults<'_>,
    table: &[(At<String>, At<StepTable>)],
    steps: &[Step],
) {
    let by_name: BTreeMap<&str, &Step> = steps.iter().map(|s| (s.name.as_str(), s)).collect();
    for (_, table) in table {
        let mut made: BTreeMap<&TreePath, &str> = BTreeMap::new();
        let needs = table.get().needs.iter().flat_map(|list| &list.0);
        for (need, needed) in
            needs.filter_map(|need| Some((need, by_name.get(need.get().as_str())?)))
        {
            for cell in &needed.cells {
                for output in &cell.outputs {
                    if let Some(other) = made.insert(output, &cell.name) {
                        let message = collision(&cell.name, other, output);
                        faults.add(need.span(), message);
                        return;
                    }
                }
            }
            for (output, cell) in &made {
                let mut above = output.split_last().map(|(folder, _)| folder);
                while let Some(folder) = above {
                    if let Some(other) = made.get(&folder) {
                        faults.add(need.span(), collision(cell, other, output));
                        return;
                    }
                    above = folder.split_last().map(|(folder, _)| folder);
                }
            }
        }
    }
}

fn collision(one: &str, other: &str, output: &TreePath) -> String {
    format!("{one:?} and {other:?} both make {output}, and both are needed here")
}

fn pools(faults: &mut Faults<'_>, table: &Table<At<u32>>) -> BTreeMap<String, usize> {
    let mut pools = BTreeMap::new();
    for (name, size) in &table.0 {
        if *size.get() == 0 {
            faults.add(size.span(), "nobody could ever be in this pool");
        }
        let size = usize::try_from(*size.get()).unwrap_or(usize::MAX);
        pools.insert(name.get().clone(), size);
    }
    pools
}

fn web(faults: &mut Faults<'_>, table: &WebTable) -> Web {
    let text = |text: &Option<At<String>>| text.as_ref().map(|text| text.get().clone());
    let mut users = |list: &Option<OneOrMore<String>>, default: Who| match list {
        None => vec![default],
        Some(list) => {
            let each = list.0.iter();
            each.filter_map(|who| faults.keep(who.span(), self::who(who.get())))
                .collect()
        }
    };
    let can_read = users(&table.can_read, Who::Everyone);
    let can_build = users(&table.can_build, Who::User("admin".into()));
    if let Some(token) = &table.metrics_token {
        let digits = token.get().bytes().all(|b| b.is_ascii_hexdigit());
        if !digits || token.get().len() != 64 {
            faults.add(
                token.span(),
                "64 hexadecimal digits are needed: the SHA-256 of the token",
            );
        }
    }
    let scopes = match &table.scopes {
        Some(list) => list.0.iter().map(|scope| scope.get().clone()).collect(),
        None => vec!["read:org".into(), "repo".into()],
    };
    Web {
        name: text(&table.name).unwrap_or_else(|| "datakit-ci".into()),
        can_read,
        can_build,
        state_repo: text(&table.state_repo),
        metrics_token: text(&table.metrics_token).map(|token| token.to_ascii_lowercase()),
        scopes,
    }
}

fn who(text: &str) -> Result<Who, String> {
    let user = |name: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        !name.is_empty() && name.chars().all(legal)
    };
    match text.split_once(':') {
        None if text == "everyone" => return Ok(Who::Everyone),
        None if user(text) => return Ok(Who::User(text.into())),
        Some(("github", login)) if user(login) => return Ok(Who::User(text.into())),
        Some(("org", name)) if user(name) => return Ok(Who::Organisation(name.into())),
        Some(("repo", repo)) => {
            let repo: Result<Repo, _> = repo.parse();
            return repo.map(Who::Readers).map_err(|error| error.to_string());
        }
        _ => (),
    }
    Err(format!(
        "{text:?} is nobody: say everyone, USER, github:LOGIN, org:NAME or repo:USER/REPOSITORY"
    ))
}

/// Returns where people see a repository of GitHub's.
fn at_github(source: &str) -> Option<String> {
    let (authority, path) = match source.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        None => source.split_once(':')?,
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let repo: Repo = path.parse().ok()?;
    host.eq_ignore_ascii_case("github.com")
        .then(|| format!("https://github.com/{repo}"))
}

/// Reads a project; nothing if it cannot even be named.
fn project(
    faults: &mut Faults<'_>,
    table: &At<ProjectTable>,
    pools: &BTreeMap<String, usize>,
    known: &BTreeSet<&Repo>,
) -> Option<Project> {
    let table = table.get();
    let repo: Repo = faults.keep(table.repo.span(), table.repo.get().parse())?;
    if known.contains(&repo) {
        faults.add(table.repo.span(), format!("{repo} is a project already"));
    }
    let source = table.source.get();
    if source.is_empty() || source.starts_with('-') {
        faults.add(
            table.source.span(),
            format!("{source:?} is no URL and no path"),
        );
    }
    let browse = match &table.browse {
        None => at_github(source),
        Some(url) => {
            let web = ["https://", "http://"]
                .iter()
                .any(|scheme| url.get().starts_with(scheme));
            if !web {
                faults.add(
                    url.span(),
                    format!("{:?} is not the address of a page", url.get()),
                );
            }
            Some(url.get().trim_end_matches('/').to_owned())
        }
    };
    for (name, table) in &table.step.0 {
        refuse_pool(faults, name, table.get(), pools);
    }
    let secrets = secrets(faults, table);
    let steps = match &table.steps_from {
        None => {
            if table.step.0.is_empty() {
                faults.add(
                    table.repo.span(),
                    format!("{repo} has no steps, and no steps-from"),
                );
            }
            Source::Here(steps(faults, &table.step, None))
        }
        Some(from) => {
            let file = faults.keep(from.span(), TreePath::new(from.get()))?;
            if file.is_root() {
                faults.add(from.span(), "a file is needed");
            }
            let mut reserved = Reserved::new();
            for (name, table) in &table.step.0 {
                step::refuse_the_rest(faults, name, table.get());
                let privileges = step::privileges(faults, table.get());
                reserved.insert(name.get().clone(), privileges);
            }
            Source::Tree { file, reserved }
        }
    };
    let untrusted = match table
        .untrusted
        .as_ref()
        .map(|u| (u.get().as_str(), u.span()))
    {
        None | Some(("approve", _)) => Untrusted::Approve,
        Some(("sandbox", _)) => Untrusted::Sandbox,
        Some((other, span)) => {
            faults.add(span, format!("{other:?}: say approve or sandbox"));
            Untrusted::Approve
        }
    };
    let keep = Keep {
        logs: table
            .keep
            .logs
            .as_ref()
            .and_then(|logs| faults.keep(logs.span(), amount::duration(logs.get()))),
        builds: table.keep.builds.as_ref().map(|builds| *builds.get()),
    };
    if let Some(builds) = table
        .keep
        .builds
        .as_ref()
        .filter(|builds| *builds.get() == 0)
    {
        faults.add(
            builds.span(),
            "the newest build is always kept: say 1 or more",
        );
    }
    Some(Project {
        source: source.clone(),
        browse,
        targets: targets(
            faults,
            table.targets.as_ref(),
            &["heads/**", "tags/**", "pr/*"],
        )?,
        dashboards: match &table.dashboards {
            Some(list) => list.0.iter().map(|branch| branch.get().clone()).collect(),
            None => vec!["master".into()],
        },
        steps,
        secrets,
        untrusted,
        keep,
        log_limit: table
            .log_limit
            .as_ref()
            .and_then(|limit| faults.keep(limit.span(), amount::size(limit.get()))),
        repo,
    })
}

fn refuse_pool(
    faults: &mut Faults<'_>,
    name: &At<String>,
    table: &StepTable,
    pools: &BTreeMap<String, usize>,
) {
    if let Some(pool) = table
        .pool
        .as_ref()
        .filter(|pool| !pools.contains_key(pool.get()))
    {
        let message = format!("{:?}: there is no pool {:?}", name.get(), pool.get());
        faults.add(pool.span(), message);
    }
}

fn targets(
    faults: &mut Faults<'_>,
    list: Option<&OneOrMore<String>>,
    default: &[&str],
) -> Option<Targets> {
    let Some(list) = list else {
        return Targets::new(default).ok();
    };
    for pattern in &list.0 {
        faults.keep(pattern.span(), Targets::new([pattern.get()]))?;
    }
    Targets::new(list.0.iter().map(At::get)).ok()
}

/// Reads the secrets, and refuses those that a step asks for in vain.
fn secrets(faults: &mut Faults<'_>, table: &ProjectTable) -> Vec<Grant> {
    let mut secrets: Vec<Grant> = Vec::new();
    for grant in &table.secret {
        let Some(secret) = secret(faults, grant) else {
            continue;
        };
        if secrets.iter().any(|other| other.name == secret.name) {
            faults.add(
                grant.name.span(),
                format!("{:?} is there twice", secret.name),
            );
        }
        if table.steps_from.is_none() {
            for step in &grant.steps.0 {
                if !table
                    .step
                    .0
                    .iter()
                    .any(|(name, _)| name.get() == step.get())
                {
                    faults.add(step.span(), format!("there is no step {:?}", step.get()));
                }
            }
        }
        secrets.push(secret);
    }
    for (name, step) in &table.step.0 {
        for wanted in step.get().secrets.iter().flat_map(|list| &list.get().0) {
            let granted = secrets
                .iter()
                .any(|secret| secret.name == *wanted.get() && secret.steps.contains(name.get()));
            if !granted {
                let message = format!(
                    "no [[project.secret]] grants {:?} to the step {:?}",
                    wanted.get(),
                    name.get()
                );
                faults.add(wanted.span(), message);
            }
        }
    }
    secrets
}

fn secret(faults: &mut Faults<'_>, table: &SecretTable) -> Option<Grant> {
    let name = table.name.get();
    if !step::is_variable(name) || name.starts_with("DK_") {
        let message = format!("{name:?} cannot be the variable of a secret");
        faults.add(table.name.span(), message);
    }
    for pattern in &table.refs.0 {
        let text = pattern.get();
        if !text.starts_with("heads/") && !text.starts_with("tags/") {
            let message = format!("{text:?}: secrets are for heads/ and tags/ only");
            faults.add(pattern.span(), message);
        }
    }
    Some(Grant {
        name: name.clone(),
        steps: table
            .steps
            .0
            .iter()
            .map(|step| step.get().clone())
            .collect(),
        refs: targets(faults, Some(&table.refs), &[])?,
    })
}
