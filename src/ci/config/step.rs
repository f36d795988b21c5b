//! One step's table, read into a [`Step`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::file::{
    AlsoTable, OneOrMore, RetryTable, RunValue, Scalar, StepTable, Table, WhenTable,
};
use super::matrix::{self, Cell, MAX_CELL, MAX_CELLS};
use super::place::{At, Faults};
use super::{
    Also, Globs, Privileges, Rerun, Reserved, Retry, RetryOn, Step, TIMEOUT, Targets, When,
};
use crate::ci::Script;
use crate::forge::{self, Repo};
use crate::model::TreePath;
use crate::model::text::amount;

/// Reads a step. `file` keeps it from what only the engine may say, and adds
/// what the engine does say.
pub(super) fn read(
    faults: &mut Faults<'_>,
    name: &At<String>,
    table: &At<StepTable>,
    file: Option<&Reserved>,
) -> Step {
    legal_name(faults, name);
    let (span, table) = (table.span(), table.get());
    let privileges = match file {
        Some(reserved) => {
            refuse_privileges(faults, table);
            reserved.get(name.get()).cloned().unwrap_or_default()
        }
        None => privileges(faults, table),
    };
    let mut step = Step {
        name: name.get().clone(),
        run: run(faults, name.span(), table),
        inputs: globs(faults, table.inputs.as_ref()).unwrap_or_default(),
        needs: texts(table.needs.as_ref()),
        timeout: timeout(faults, table.timeout.as_ref()),
        when: when(faults, table.when.as_ref()),
        retry: table
            .retry
            .as_ref()
            .and_then(|retry| self::retry(faults, retry)),
        rerun: rerun(faults, table.rerun.as_ref()),
        env: variables(faults, &table.env),
        pool: privileges.pool,
        secrets: privileges.secrets,
        also: privileges.also,
        after_status: privileges.after_status,
        cells: Vec::new(),
    };
    step.cells = cells(faults, &span, table, &step);
    step
}

/// Reads what only the engine may say.
pub(super) fn privileges(faults: &mut Faults<'_>, table: &StepTable) -> Privileges {
    let also = table.also.iter().flat_map(|also| &also.get().0);
    Privileges {
        pool: table.pool.as_ref().map(|pool| pool.get().clone()),
        secrets: texts(table.secrets.as_ref().map(At::get)),
        also: also
            .filter_map(|also| self::also(faults, also.get()))
            .collect(),
        after_status: table.after_status.as_ref().and_then(|context| {
            let read = forge::context(context.get()).filter(|_| !context.get().is_empty());
            let refused = || format!("{:?} is no context of a status", context.get());
            faults.keep(context.span(), read.ok_or_else(refused))
        }),
    }
}

/// Refuses what a file in a tree says that only the engine may.
fn refuse_privileges(faults: &mut Faults<'_>, table: &StepTable) {
    let said = [
        ("pool", table.pool.as_ref().map(At::span)),
        ("secrets", table.secrets.as_ref().map(At::span)),
        ("also", table.also.as_ref().map(At::span)),
        ("after-status", table.after_status.as_ref().map(At::span)),
    ];
    for (key, span) in said {
        if let Some(span) = span {
            let message = format!("`{key}` is only for the engine's configuration to say");
            faults.add(span, message);
        }
    }
}

/// Refuses, beside `steps-from`, what the tree is to say itself.
pub(super) fn refuse_the_rest(faults: &mut Faults<'_>, name: &At<String>, table: &StepTable) {
    let said = table.run.is_some()
        || table.inputs.is_some()
        || table.outputs.is_some()
        || table.needs.is_some()
        || table.timeout.is_some()
        || !table.matrix.0.is_empty()
        || table.when.is_some()
        || table.retry.is_some()
        || table.rerun.is_some()
        || !table.env.0.is_empty()
        || table.image.is_some();
    if said {
        let message = format!(
            "the step {:?} is described in the tree (steps-from): only pool, secrets, also and \
             after-status are said here",
            name.get()
        );
        faults.add(name.span(), message);
    }
}

/// A step's name is a part of a path, of a status' context and of a cell's name.
fn legal_name(faults: &mut Faults<'_>, name: &At<String>) {
    let text = name.get();
    let odd = |c: char| c.is_control() || matches!(c, '/' | ',' | '\\');
    let legal = !text.is_empty()
        && !text.contains(odd)
        && text.trim() == text
        && TreePath::new(text).is_ok_and(|path| !path.is_root());
    if !legal {
        let message = format!(
            "{text:?} cannot be the name of a step: it is to be one part of a path, with no comma"
        );
        faults.add(name.span(), message);
    }
}

fn run(faults: &mut Faults<'_>, name: Range<usize>, table: &StepTable) -> Script {
    let Some(run) = &table.run else {
        faults.add(name, "missing key `run`");
        return Script::Shell(String::new());
    };
    let span = run.span();
    match run.get() {
        RunValue::Script(script) => {
            if script.trim().is_empty() {
                faults.add(span.clone(), "there is nothing to run");
            }
            refuse_nul(faults, span, script);
            Script::Shell(script.clone())
        }
        RunValue::Commands(commands) => {
            let named = |command: &Vec<String>| command.first().is_some_and(|p| !p.is_empty());
            if commands.is_empty() || !commands.iter().all(named) {
                faults.add(span.clone(), "a command names no program");
            }
            for argument in commands.iter().flatten() {
                refuse_nul(faults, span.clone(), argument);
            }
            Script::Commands(commands.clone())
        }
    }
}

fn refuse_nul(faults: &mut Faults<'_>, span: Range<usize>, text: &str) {
    if text.contains('\0') {
        faults.add(span, "a NUL cannot be passed to a program");
    }
}

fn texts(list: Option<&OneOrMore<String>>) -> Vec<String> {
    let list = list.iter().flat_map(|list| &list.0);
    list.map(|text| text.get().clone()).collect()
}

/// Reads globs, each with its place.
pub(super) fn globs(faults: &mut Faults<'_>, list: Option<&OneOrMore<String>>) -> Option<Globs> {
    let list = &list?.0;
    for glob in list {
        faults.keep(glob.span(), Globs::new([glob.get()]))?;
    }
    Globs::new(list.iter().map(At::get)).ok()
}

/// Reads the outputs of one cell.
fn outputs(
    faults: &mut Faults<'_>,
    list: &OneOrMore<String>,
    values: &BTreeMap<String, String>,
) -> Vec<TreePath> {
    let mut outputs: Vec<TreePath> = Vec::new();
    for output in &list.0 {
        let text = matrix::fill(output.get(), values);
        let Some(path) = faults.keep(output.span(), TreePath::new(text)) else {
            continue;
        };
        if path.is_root() {
            faults.add(output.span(), "the whole tree cannot be an output");
        } else if let Some(other) = outputs
            .iter()
            .find(|other| path.starts_with(other) || other.starts_with(&path))
        {
            let message = format!("one of the outputs {path} and {other} is within the other");
            faults.add(output.span(), message);
        } else {
            outputs.push(path);
        }
    }
    outputs
}

fn timeout(faults: &mut Faults<'_>, text: Option<&At<String>>) -> Duration {
    let Some(text) = text else {
        return TIMEOUT;
    };
    match faults.keep(text.span(), amount::duration(text.get())) {
        Some(Duration::ZERO) => {
            faults.add(text.span(), "no step is done in no time");
            TIMEOUT
        }
        Some(timeout) => timeout,
        None => TIMEOUT,
    }
}

fn when(faults: &mut Faults<'_>, table: Option<&WhenTable>) -> When {
    let Some(table) = table else {
        return When::default();
    };
    let branch = table.branch.as_ref().and_then(|list| {
        for pattern in &list.0 {
            faults.keep(pattern.span(), Targets::branches([pattern.get()]))?;
        }
        Targets::branches(list.0.iter().map(At::get)).ok()
    });
    When {
        branch,
        changed: globs(faults, table.changed.as_ref()),
    }
}

fn retry(faults: &mut Faults<'_>, table: &RetryTable) -> Option<Retry> {
    const MOST: u32 = 10;
    if *table.times.get() > MOST {
        faults.add(table.times.span(), format!("at most {MOST} times"));
    }
    let mut on = Vec::new();
    for text in table.on.iter().flat_map(|list| &list.0) {
        on.push(faults.keep(text.span(), retry_on(text.get()))?);
    }
    if on.is_empty() {
        on.push(RetryOn::Failure);
    }
    Some(Retry {
        times: *table.times.get(),
        on,
    })
}

fn retry_on(text: &str) -> Result<RetryOn, String> {
    let code = |text: &str| text.strip_prefix("exit ")?.parse().ok();
    match text {
        "failure" => Ok(RetryOn::Failure),
        "timeout" => Ok(RetryOn::Timeout),
        _ => match code(text) {
            Some(code) if code != 0 => Ok(RetryOn::Exit(code)),
            _ => Err(format!(
                "{text:?} is no failure: say failure, timeout or exit N (1 to 255)"
            )),
        },
    }
}

fn rerun(faults: &mut Faults<'_>, text: Option<&At<String>>) -> Rerun {
    match text.map(|text| (text.get().as_str(), text.span())) {
        None | Some(("lost", _)) => Rerun::Lost,
        Some(("never", _)) => Rerun::Never,
        Some((other, span)) => {
            faults.add(span, format!("{other:?}: say lost or never"));
            Rerun::Lost
        }
    }
}

/// Tells whether a variable may have this name.
pub(super) fn is_variable(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.bytes().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty()
}

fn variable(faults: &mut Faults<'_>, name: &At<String>) -> bool {
    let text = name.get();
    let good = is_variable(text) && !text.starts_with("DK_");
    if !good {
        let why = if is_variable(text) {
            "those that begin with DK_ are the engine's"
        } else {
            "letters, digits and _ make one, and it begins with no digit"
        };
        faults.add(name.span(), format!("{text:?} cannot be a variable: {why}"));
    }
    good
}

fn variables(faults: &mut Faults<'_>, table: &Table<At<Scalar>>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in &table.0 {
        refuse_nul(faults, value.span(), &value.get().0);
        if variable(faults, name) {
            variables.insert(name.get().clone(), value.get().0.clone());
        }
    }
    variables
}

fn also(faults: &mut Faults<'_>, table: &AlsoTable) -> Option<Also> {
    let repo = faults.keep(table.repo.span(), table.repo.get().parse::<Repo>())?;
    let name = faults.keep(table.name.span(), TreePath::new(table.name.get()))?;
    let known = name.steps().count() > 1
        && (name.as_bytes().starts_with(b"heads/") || name.as_bytes().starts_with(b"tags/"));
    if !known {
        let message = format!(
            "{:?} is no ref: it begins with heads/ or tags/",
            table.name.get()
        );
        faults.add(table.name.span(), message);
        return None;
    }
    Some(Also { repo, name })
}

/// Expands the matrix.
fn cells(
    faults: &mut Faults<'_>,
    span: &Range<usize>,
    table: &StepTable,
    step: &Step,
) -> Vec<Cell> {
    let mut matrix: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut count = 1_usize;
    for (key, values) in &table.matrix.0 {
        if !variable(faults, key) {
            continue;
        }
        if step.env.contains_key(key.get()) {
            faults.add(key.span(), format!("{:?} is in env too", key.get()));
        }
        if values.0.is_empty() {
            faults.add(key.span(), format!("{:?} has no values", key.get()));
        }
        let mut seen = BTreeSet::new();
        for value in &values.0 {
            refuse_nul(faults, value.span(), &value.get().0);
            if !seen.insert(&value.get().0) {
                faults.add(value.span(), format!("{:?} is there twice", value.get().0));
            }
        }
        count = count.saturating_mul(values.0.len());
        let values = values.0.iter().map(|value| value.get().0.clone());
        matrix.insert(key.get().clone(), values.collect());
    }
    let outputs_ = table.outputs.iter().flat_map(|list| &list.0);
    for text in table.image.iter().chain(outputs_) {
        for key in matrix::named(text.get()) {
            if !matrix.contains_key(key) {
                faults.add(text.span(), format!("{key:?} is no key of the matrix"));
                return Vec::new();
            }
        }
    }
    if count > MAX_CELLS {
        let message = format!("{count} combinations are too many: at most {MAX_CELLS}");
        faults.add(span.clone(), message);
        return Vec::new();
    }
    let mut cells = matrix::expand(&step.name, &matrix);
    for cell in &mut cells {
        if cell.name.len() > MAX_CELL {
            faults.add(
                span.clone(),
                format!("the name {:?} is too long", cell.name),
            );
            break;
        }
        let before = faults.count();
        if let Some(list) = &table.outputs {
            cell.outputs = outputs(faults, list, &cell.values);
        }
        if let Some(image) = &table.image {
            let name = matrix::fill(image.get(), &cell.values);
            if name.is_empty() || name.starts_with('-') || name.contains(char::is_whitespace) {
                faults.add(image.span(), format!("{name:?} is no image"));
            }
            cell.image = Some(name);
        }
        if faults.count() > before {
            // The other cells would say the same again.
            break;
        }
    }
    cells
}
