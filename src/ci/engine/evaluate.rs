//! One target, evaluated: what each cell of each step has for its head.
//!
//! It reads the snapshot, the source and results; it starts builds; it writes
//! nothing. Trouble with a source is the outcome of a cell; trouble with the
//! store is an error, and the round is to be done again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use crate::ci::config::{self, Also, Cell, Project, Source, Step, Steps, Untrusted};
use crate::ci::engine::build::Plan;
use crate::ci::engine::results::{Answer, Shared, lock};
use crate::ci::engine::source::Fetched;
use crate::ci::history::{self, Record};
use crate::ci::key::{Domain, Key, Tree, digest_of};
use crate::ci::layout::{self, Logs, Outcome, Output, Place, State, Target};
use crate::ci::{Done, Placed, files, term};
use crate::client::{At, Result};
use crate::forge::{Id, Pr, Repo, Sha, Snapshot};
use crate::model::text::chain;
use crate::model::{BranchName, ObjectId, TreePath};

/// The cell that stands for steps that cannot be read.
pub(super) const CONFIGURATION: &str = "configuration";
/// Files of steps that are remembered.
const REMEMBERED: usize = 256;

/// What is to be evaluated, and what is known of it.
pub(super) struct Subject<'a> {
    pub target: &'a Target,
    pub project: &'a Project,
    /// The steps the engine's file describes.
    pub here: &'a Arc<Steps>,
    pub snapshot: &'a Snapshot,
    pub sha: &'a Sha,
    /// The commit of a pull request that somebody approved.
    pub approved: Option<&'a Sha>,
    /// The commit the outputs are for, and what each cell has had for it.
    pub evaluated: Option<&'a Sha>,
    pub outputs: &'a BTreeMap<String, Output>,
    /// The last head whose cells had all ended, where that is known.
    pub tested: Option<&'a Option<Sha>>,
}

/// What a cell has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Has {
    pub output: Output,
    /// The branch of its result, where its key is known.
    pub branch: Option<BranchName>,
}

/// What an evaluation came to.
#[derive(Default)]
pub(super) struct Verdict {
    pub cells: BTreeMap<String, Has>,
    /// Which cells each waits for; empty where the steps are not known.
    pub needs: BTreeMap<String, Vec<String>>,
    /// Elements of the snapshot that, when they change, may change this.
    pub depends: BTreeSet<Id>,
    /// A source failed: it is to be tried again after a while.
    pub again: bool,
    /// The last head whose cells had all ended, where it was looked up.
    pub tested: Option<Option<Sha>>,
}

/// How far a target is trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Full,
    /// A fork at a commit that somebody looked at.
    Approved,
    Sandbox,
    /// Not until somebody approves of it.
    None,
}

/// Steps of trees, by the blob of their file.
#[derive(Default)]
pub(super) struct Read(Mutex<HashMap<(Repo, ObjectId), Known>>);

/// The steps of a file, or what is wrong with it.
type Known = Result<Arc<Steps>, String>;

/// Why there is nothing to run.
enum Halt {
    Store(crate::client::Error),
    /// Of the whole target: every cell has it.
    Outcome(Outcome),
}

impl From<crate::client::Error> for Halt {
    fn from(error: crate::client::Error) -> Self {
        Self::Store(error)
    }
}

/// What an evaluation works with.
pub(super) struct Evaluation<'a> {
    pub shared: &'a Arc<Shared>,
    pub read: &'a Read,
    pub subject: Subject<'a>,
    verdict: Verdict,
}

/// What the cells of a step have, for those that need it.
struct Needed {
    cell: String,
    state: State,
    value: Option<ObjectId>,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, read: &'a Read, subject: Subject<'a>) -> Self {
        Self {
            shared,
            read,
            subject,
            verdict: Verdict::default(),
        }
    }

    pub(super) async fn run(mut self) -> Result<Verdict> {
        let trust = self.trust();
        let steps = match self.steps(trust).await {
            Ok(steps) => steps,
            Err(Halt::Store(error)) => return Err(error),
            Err(Halt::Outcome(outcome)) => {
                self.unreadable(outcome);
                return Ok(self.verdict);
            }
        };
        self.verdict.needs = needs(&steps);
        if trust == Trust::None {
            let text = "Waiting for approval of a pull request from elsewhere";
            self.all(&steps, &Outcome::pending(text));
            return Ok(self.verdict);
        }
        let (target, sha) = (self.subject.target, self.subject.sha);
        let tree = match self.tree(target, sha).await {
            Ok(tree) => tree,
            Err(outcome) => {
                self.all(&steps, &outcome);
                return Ok(self.verdict);
            }
        };
        let mut done: HashMap<&str, Vec<Needed>> = HashMap::new();
        for step in steps.iter() {
            let had = self.step(&tree, trust, step, &done).await?;
            done.insert(&step.name, had);
        }
        Ok(self.verdict)
    }

    fn pr(&self) -> Option<&'a Pr> {
        let Place::Pr(number) = self.subject.target.place else {
            return None;
        };
        let key = (self.subject.target.repo.clone(), number);
        self.subject.snapshot.prs.get(&key)
    }

    fn trust(&self) -> Trust {
        let Some(pr) = self.pr() else {
            return Trust::Full;
        };
        if !pr.is_fork(&self.subject.target.repo) {
            Trust::Full
        } else if self.subject.approved == Some(self.subject.sha) {
            Trust::Approved
        } else if self.subject.project.untrusted == Untrusted::Sandbox {
            Trust::Sandbox
        } else {
            Trust::None
        }
    }

    fn domain(&self, trust: Trust) -> Domain {
        match (trust, &self.subject.target.place) {
            (Trust::Approved | Trust::Sandbox, Place::Pr(number)) => {
                Domain::Pr(*number, self.subject.sha.clone())
            }
            _ => Domain::Trusted,
        }
    }

    /// Returns the branch a pull request is to be merged into, with its head.
    fn base(&mut self) -> Result<(Target, Sha), Outcome> {
        let repo = &self.subject.target.repo;
        let name = self.pr().map(|pr| format!("heads/{}", pr.base));
        let name = TreePath::new(name.unwrap_or_default())
            .map_err(|error| Outcome::failure(format!("Invalid ref name: {error}")))?;
        self.head(&Target::of_ref(repo, &name))
    }

    /// Returns the head of a target that this one depends on, too.
    fn head(&mut self, target: &Target) -> Result<(Target, Sha), Outcome> {
        let Place::Ref(name) = &target.place else {
            return Err(Outcome::failure(format!("{target} is no ref")));
        };
        let key = (target.repo.clone(), name.clone());
        let id = Id::Ref(target.repo.clone(), name.clone());
        self.verdict.depends.insert(id);
        match self.subject.snapshot.refs.get(&key) {
            Some(sha) => Ok((target.clone(), sha.clone())),
            None => Err(Outcome::failure(format!("Target {target} does not exist"))),
        }
    }

    /// Returns what has this target evaluated again.
    fn done(&self) -> Done {
        let (shared, target) = (self.shared.clone(), self.subject.target.clone());
        Box::new(move || shared.tell_target(&target))
    }

    /// Returns a commit's tree; else what to say meanwhile.
    async fn tree(&mut self, from: &Target, sha: &Sha) -> Result<Tree, Outcome> {
        let Some(commit) = ObjectId::from_hex(sha.as_bytes()) else {
            return Err(Outcome::failure(format!("{sha} is not a commit's id")));
        };
        match self.shared.fetches.get(from, sha, self.done()).await {
            Fetched::Ready(client) => Ok(Tree::new(client, commit)),
            Fetched::Waits => Err(Outcome::pending(format!("Fetching {sha}"))),
            Fetched::Failed(why) => {
                self.verdict.again = true;
                Err(Outcome::failure(format!("Cannot fetch {sha}: {why}")))
            }
        }
    }

    async fn steps(&mut self, trust: Trust) -> Result<Arc<Steps>, Halt> {
        let (file, reserved) = match &self.subject.project.steps {
            Source::Here(_) => return Ok(self.subject.here.clone()),
            Source::Tree { file, reserved } => (file, reserved),
        };
        // Nobody looked at the file of an unapproved pull request.
        let (from, sha) = match trust {
            Trust::Full | Trust::Approved => {
                (self.subject.target.clone(), self.subject.sha.clone())
            }
            Trust::Sandbox | Trust::None => self.base().map_err(Halt::Outcome)?,
        };
        let tree = self.tree(&from, &sha).await.map_err(Halt::Outcome)?;
        let outcome = |text: String| Halt::Outcome(Outcome::failure(text));
        let at = At::Commit(tree.commit);
        let found = tree.client.stat(&at, file).await;
        let found = found.map_err(|error| outcome(chain(&error)))?;
        let Some(found) = found.filter(|found| found.entry.mode.is_blob()) else {
            return Err(outcome(format!("{file} does not exist")));
        };
        let repo = self.subject.project.repo.clone();
        let key = (repo, found.entry.id);
        let known = lock(&self.read.0).get(&key).cloned();
        let read = match known {
            Some(read) => read,
            None => {
                let path = String::from_utf8_lossy(file.as_bytes());
                let text = files::read(&*tree.client, &tree.commit, &path).await;
                let text = text.map_err(|error| outcome(chain(&error)))?;
                let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
                let read = config::tree(&text, reserved);
                let read = read
                    .map(Arc::new)
                    .map_err(|invalid| format!("{file}:{invalid}"));
                let mut known = lock(&self.read.0);
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(key, read.clone());
                read
            }
        };
        read.map_err(|text| outcome(text.lines().next().unwrap_or_default().to_owned()))
    }

    /// Nothing is known of the steps: those the target had wait or fail, and
    /// one stands for all that are not known.
    fn unreadable(&mut self, outcome: Outcome) {
        if outcome.state == State::Pending {
            let cells: Vec<String> = self.subject.outputs.keys().cloned().collect();
            for cell in cells {
                self.put(&cell, outcome.clone());
            }
        }
        if self.verdict.cells.is_empty() {
            self.put(CONFIGURATION, outcome);
        }
    }

    fn all(&mut self, steps: &Steps, outcome: &Outcome) {
        for step in steps {
            for cell in &step.cells {
                self.put(&cell.name, outcome.clone());
            }
        }
    }

    fn put(&mut self, cell: &str, outcome: Outcome) -> State {
        let state = outcome.state;
        let has = Has {
            output: Output {
                result: outcome,
                logs: Logs::None,
            },
            branch: None,
        };
        self.verdict.cells.insert(cell.to_owned(), has);
        state
    }

    /// Evaluates the cells of a step.
    async fn step(
        &mut self,
        tree: &Tree,
        trust: Trust,
        step: &Step,
        done: &HashMap<&str, Vec<Needed>>,
    ) -> Result<Vec<Needed>> {
        let frame = match self.frame(tree, trust, step, done).await {
            Ok(frame) => frame,
            Err(Halt::Store(error)) => return Err(error),
            Err(Halt::Outcome(outcome)) => {
                let cells = step.cells.iter().map(|cell| Needed {
                    state: self.put(&cell.name, outcome.clone()),
                    cell: cell.name.clone(),
                    value: None,
                });
                return Ok(cells.collect());
            }
        };
        let mut cells = Vec::with_capacity(step.cells.len());
        for cell in &step.cells {
            let (branch, answer) = self.cell(tree, trust, step, cell, &frame).await?;
            cells.push(Needed {
                cell: cell.name.clone(),
                state: answer.output.result.state,
                value: answer.value,
            });
            let has = Has {
                output: answer.output,
                branch,
            };
            self.verdict.cells.insert(cell.name.clone(), has);
        }
        Ok(cells)
    }

    /// Returns what all cells of a step have in common, unless something is in
    /// the way.
    async fn frame(
        &mut self,
        tree: &Tree,
        trust: Trust,
        step: &Step,
        done: &HashMap<&str, Vec<Needed>>,
    ) -> Result<Frame, Halt> {
        if let Some(why) = self.skipped(tree, step).await? {
            let text = format!("{}{why}", term::SKIPPED);
            return Err(Halt::Outcome(Outcome::success(text)));
        }
        let needed = || step.needs.iter().filter_map(|need| done.get(need.as_str()));
        let states = needed()
            .flatten()
            .map(|cell| (cell.cell.as_str(), cell.state));
        if let Some(outcome) = term::wait_for_all(states) {
            return Err(Halt::Outcome(outcome));
        }
        let mut frame = Frame::default();
        for cell in needed().flatten() {
            let value = cell.value.map_or("-".to_owned(), |value| value.to_hex());
            frame.parts.push((format!("need {}", cell.cell), value));
            if let Some(value) = cell.value {
                frame.placed.push(Placed {
                    client: self.shared.client.clone(),
                    at: At::Tree(value),
                    from: TreePath::root(),
                    to: TreePath::root(),
                });
            }
        }
        if let Some(context) = &step.after_status {
            let (repo, sha) = (&self.subject.target.repo, self.subject.sha);
            let key = (repo.clone(), sha.clone(), context.clone());
            let id = Id::Status(repo.clone(), sha.clone(), context.clone());
            self.verdict.depends.insert(id);
            let status = self.subject.snapshot.statuses.get(&key);
            let url = term::after_status(context, status).map_err(Halt::Outcome)?;
            frame
                .parts
                .push((format!("after-status {context}"), digest_of(url.as_bytes())));
            frame.env.insert("DK_STATUS_URL".into(), url);
        }
        let mut also = Vec::new();
        for Also { repo, name } in &step.also {
            let (target, sha) = self
                .head(&Target::of_ref(repo, name))
                .map_err(Halt::Outcome)?;
            let other = self.tree(&target, &sha).await.map_err(Halt::Outcome)?;
            frame.parts.push((format!("also {target}"), sha.clone()));
            also.push(format!("{target} {sha}"));
            frame.placed.push(Placed {
                client: other.client,
                at: At::Commit(other.commit),
                from: TreePath::root(),
                to: TreePath::new(format!(".also/{repo}"))
                    .map_err(|error| Halt::Outcome(Outcome::failure(error.to_string())))?,
            });
        }
        if !also.is_empty() {
            frame.env.insert("DK_ALSO".into(), also.join("\n"));
        }
        if matches!(trust, Trust::Full) {
            let place = self.subject.target.place.to_string();
            let granted = self.subject.project.secrets(step, &place);
            frame.secrets = granted.into_iter().map(str::to_owned).collect();
        }
        Ok(frame)
    }

    async fn cell(
        &mut self,
        tree: &Tree,
        trust: Trust,
        step: &Step,
        cell: &Cell,
        frame: &Frame,
    ) -> Result<(Option<BranchName>, Answer)> {
        let mut image = None;
        if let Some(name) = &cell.image {
            image = self.shared.runner.image(name, self.done()).await;
            if image.is_none() {
                let waits = Outcome::pending(format!("Pulling {name}"));
                return Ok((None, told(waits)));
            }
        }
        let mut env = step.variables(cell);
        env.extend(frame.env.clone());
        let mut key = Key::new(&cell.name, &self.domain(trust));
        key.script(&step.run);
        key.variables(&env);
        key.outputs(&cell.outputs);
        if let Some(digest) = image {
            key.part("image", digest_of(digest.as_bytes()));
        }
        if trust == Trust::Sandbox {
            key.part("sandbox", "yes");
        }
        for name in &frame.secrets {
            key.part(&format!("secret {name}"), "-");
        }
        for (what, value) in &frame.parts {
            key.part(what, value);
        }
        let inputs = match tree.select(&step.inputs).await {
            Ok(inputs) => inputs,
            Err(error) => {
                self.verdict.again = true;
                let text = format!("Cannot read {}: {}", tree.commit, chain(&error));
                return Ok((None, told(Outcome::failure(text))));
            }
        };
        key.inputs(&inputs);
        let branch = layout::result_branch(&cell.name, &key.digest());
        let same = self.subject.evaluated == Some(self.subject.sha);
        let kept = self.subject.outputs.get(&cell.name).filter(|_| same);
        let never = step.rerun == config::Rerun::Never;
        let plan = || Plan {
            target: self.subject.target.clone(),
            sha: self.subject.sha.clone(),
            cell: cell.name.clone(),
            key: key.text().to_owned(),
            pool: step.pool.clone(),
            retry: step.retry.clone(),
            log_limit: self.subject.project.log_limit,
            script: step.run.clone(),
            env,
            image: cell.image.clone(),
            timeout: step.timeout,
            sandbox: trust == Trust::Sandbox,
            secrets: frame.secrets.clone(),
            source: tree.client.clone(),
            inputs,
            placed: frame.placed.clone(),
            outputs: cell.outputs.clone(),
        };
        let answer = self.shared.look_up(&branch, plan, never, kept).await?;
        Ok((Some(branch), answer))
    }

    /// Returns why a step does not apply, where it does not.
    async fn skipped(&mut self, tree: &Tree, step: &Step) -> Result<Option<String>, Halt> {
        if let Some(branches) = &step.when.branch {
            let on = self.subject.target.branch();
            if !on.is_some_and(|branch| branches.contain(branch)) {
                let texts = branches.texts().join(", ");
                return Ok(Some(format!("only on {texts}")));
            }
        }
        let Some(globs) = &step.when.changed else {
            return Ok(None);
        };
        let Some(base) = self.compared(tree).await? else {
            return Ok(None);
        };
        let (old, new) = (At::Commit(base), At::Commit(tree.commit));
        let changes = tree.client.diff(&old, &new, &TreePath::root()).await;
        // A base that is gone (a branch that was rewound) is no base.
        let Ok(changes) = changes else {
            return Ok(None);
        };
        if changes.iter().any(|change| globs.contain(&change.path)) {
            return Ok(None);
        }
        let texts = globs.texts().join(", ");
        Ok(Some(format!("nothing changed in {texts}")))
    }

    /// Returns the commit that `changed` compares with, where there is one.
    async fn compared(&mut self, tree: &Tree) -> Result<Option<ObjectId>, Halt> {
        if self.pr().is_some() {
            let (base, sha) = self.base().map_err(Halt::Outcome)?;
            let base = self.tree(&base, &sha).await.map_err(Halt::Outcome)?;
            let bases = tree.client.merge_bases(&tree.commit, &base.commit).await;
            return Ok(bases.ok().and_then(|bases| bases.first().copied()));
        }
        let tested = match (self.subject.tested, &self.verdict.tested) {
            (Some(known), _) => known.clone(),
            (None, Some(known)) => known.clone(),
            (None, None) => {
                let (client, target) = (&*self.shared.client, self.subject.target);
                let tested = history::last_tested(client, target, self.subject.sha).await?;
                self.verdict.tested = Some(tested.clone());
                tested
            }
        };
        Ok(tested.and_then(|sha| ObjectId::from_hex(sha.as_bytes())))
    }
}

/// The answer for a cell that has no build.
fn told(result: Outcome) -> Answer {
    Answer {
        output: Output {
            result,
            logs: Logs::None,
        },
        value: None,
    }
}

/// What the cells of a step have in common.
#[derive(Default)]
struct Frame {
    /// Parts of the key.
    parts: Vec<(String, String)>,
    env: BTreeMap<String, String>,
    placed: Vec<Placed>,
    secrets: Vec<String>,
}

/// Returns which cells each cell waits for.
fn needs(steps: &Steps) -> BTreeMap<String, Vec<String>> {
    let names = |step: &Step| -> Vec<String> {
        let needed = step.needs.iter().filter_map(|need| steps.get(need));
        let cells = needed.flat_map(|step| step.cells.iter().map(|cell| cell.name.clone()));
        cells.collect()
    };
    let of = |step| {
        let cells = |step: &Step| step.cells.iter().map(|cell| cell.name.clone()).collect();
        let cells: Vec<String> = cells(step);
        let needs = names(step);
        cells.into_iter().map(move |cell| (cell, needs.clone()))
    };
    steps.iter().flat_map(of).collect()
}

/// Returns a record as what a target has, before it is evaluated.
pub(super) fn remembered(record: &Record) -> BTreeMap<String, Has> {
    let each = record.outputs.iter().map(|(cell, output)| {
        let has = Has {
            output: history::asleep(output),
            branch: None,
        };
        (cell.clone(), has)
    });
    each.collect()
}
