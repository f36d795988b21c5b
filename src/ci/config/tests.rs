//! The configuration as a whole: what is read, and what is refused and where.

use super::*;

const ENGINE: &str = r#"
metadata-branch = "github-metadata"
status-prefix   = "ci/datakit"

[pool]
heavy = 2

[web]
can-build = ["admin", "org:moby", "github:fred", "repo:me/project"]

[[project]]
repo       = "me/project"
source     = "https://github.com/me/project.git"
targets    = ["heads/*", "tags/v*", "pr/*"]
dashboards = ["master"]
keep       = { logs = "30d", builds = 50 }
log-limit  = "64MiB"

[project.step.deploy]
needs   = ["test"]
run     = [["./deploy", "--now"], ["echo", "done"]]
when    = { branch = "master" }
rerun   = "never"
secrets = ["DEPLOY_KEY"]
after-status = "ci/circleci"
also    = { repo = "bob/lib", ref = "heads/master" }

[project.step.test]
needs  = "build"
run    = "./out/app --self-test"
matrix = { locale = ["C", "de_DE"], os = 7 }
when   = { branch = ["master", "release/*"], changed = ["src/**"] }
retry  = { times = 2, on = "exit 75" }
env    = { RUST_LOG = "info", LEVEL = 3 }
image  = "debian:${os}"
outputs = "report/${locale}"

[project.step.build]
run     = "make -j2"
inputs  = ["src/**", "Makefile"]
outputs = ["out/app"]
timeout = "30m"
pool    = "heavy"

[[project.secret]]
name  = "DEPLOY_KEY"
steps = ["deploy"]
refs  = ["heads/master"]

[[project]]
repo = "bob/lib"
source = "/srv/lib.git"
steps-from = ".dk-ci.toml"
untrusted = "sandbox"
step.build.pool = "heavy"
"#;

#[test]
fn a_repository_at_github_is_seen_there() {
    let browse = |source: &str, more: &str| {
        let text =
            format!("[[project]]\nrepo = 'a/b'\nsource = '{source}'\nsteps-from = 'x'\n{more}");
        engine(&text).map(|config| config.projects[0].browse.clone())
    };
    for source in [
        "https://github.com/me/app.git",
        "https://token@github.com/me/app/",
        "ssh://git@GitHub.com:22/me/app.git",
        "git@github.com:me/app",
    ] {
        let at = browse(source, "").expect("legal");
        assert_eq!(at.as_deref(), Some("https://github.com/me/app"), "{source}");
    }
    for source in [
        "../app.git",
        "/srv/github.com/me/app",
        "https://example.org/github.com/me/app.git",
        "https://github.com.example.org/me/app",
        "https://github.com/me",
    ] {
        assert_eq!(browse(source, ""), Ok(None), "{source}");
    }
    let named = browse("../app.git", "browse = 'https://git.example.org/me/app/'");
    let named = named.expect("legal");
    assert_eq!(named.as_deref(), Some("https://git.example.org/me/app"));
    let script = browse("../app.git", "browse = 'javascript:alert(1)'");
    let told = script.expect_err("illegal").to_string();
    assert!(
        told.contains("5:10: \"javascript:alert(1)\" is not the address of a page"),
        "{told}"
    );
}

#[test]
fn a_whole_file_is_read() {
    let config = engine(ENGINE).expect("legal");
    assert_eq!(config.metadata_branch.to_string(), "github-metadata");
    assert_eq!(config.status_prefix.to_string(), "ci/datakit");
    assert_eq!(config.pools["heavy"], 2);
    assert_eq!(config.web.can_read, [Who::Everyone]);
    assert_eq!(config.web.can_build.len(), 4);
    let project = &config.projects[0];
    assert_eq!(project.keep.builds, Some(50));
    assert_eq!(project.log_limit, Some(64 << 20));
    assert!(project.targets.contain("heads/x") && !project.targets.contain("heads/x/y"));
    let Source::Here(steps) = &project.steps else {
        panic!("the steps are here");
    };
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["build", "test", "deploy"], "needs come first");
    let (test, cell) = steps.cell("test,locale=de_DE,os=7").expect("a cell");
    assert_eq!(cell.image.as_deref(), Some("debian:7"));
    assert_eq!(cell.outputs[0].to_string(), "report/de_DE");
    let variables = test.variables(cell);
    let variables: Vec<String> = variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        variables,
        ["LEVEL=3", "RUST_LOG=info", "locale=de_DE", "os=7"]
    );
    let retry = test.retry.as_ref().expect("given");
    assert!(retry.is_for(Some(75), false) && !retry.is_for(Some(1), false));
    let on = test.when.branch.as_ref().expect("given");
    assert!(on.contain("release/1") && !on.contain("release/1/2"));
    let deploy = steps.get("deploy").expect("a step");
    assert_eq!(deploy.rerun, Rerun::Never);
    assert_eq!(project.secrets(deploy, "heads/master"), ["DEPLOY_KEY"]);
    assert!(project.secrets(deploy, "heads/other").is_empty());
    assert!(project.secrets(deploy, "pr/1").is_empty());
    let Source::Tree { file, reserved } = &config.projects[1].steps else {
        panic!("the steps are in the tree");
    };
    assert_eq!(file.to_string(), ".dk-ci.toml");
    let steps = tree("[step.build]\nrun = \"make\"", reserved).expect("legal");
    assert_eq!(
        steps.get("build").expect("a step").pool.as_deref(),
        Some("heavy")
    );
}

#[test]
fn some_steps_come_with_what_they_need() {
    let config = engine(ENGINE).expect("legal");
    let Source::Here(steps) = &config.projects[0].steps else {
        panic!("the steps are here");
    };
    let only = |names: &[&str]| -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let cells = steps.only(&names)?.into_iter().flat_map(|step| step.cells);
        Ok(cells.map(|cell| cell.name).collect())
    };
    assert_eq!(only(&["build"]).expect("known"), ["build"]);
    let one = only(&["test,locale=C,os=7"]).expect("known");
    assert_eq!(one, ["build", "test,locale=C,os=7"]);
    assert_eq!(only(&["deploy"]).expect("known").len(), 4);
    assert_eq!(
        only(&["deploy", "test,locale=C,os=7"])
            .expect("known")
            .len(),
        4
    );
    assert_eq!(only(&["test,locale=C"]), Err("test,locale=C".into()));
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = engine("").expect("legal");
    assert_eq!(config.metadata_branch.to_string(), "github-metadata");
    assert!(config.projects.is_empty());
    assert_eq!(config.web.name, "datakit-ci");
}

/// What is wrong with a tree's file.
fn wrong(text: &str) -> String {
    let found = tree(text, &Reserved::new()).expect_err("refused");
    found.to_string()
}

/// What is wrong with the only project's steps in the engine's file.
fn wrong_engine(text: &str) -> String {
    let text = format!("[[project]]\nrepo = \"a/b\"\nsource = \"x\"\n{text}");
    engine(&text).expect_err("refused").to_string()
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let step = |rest: &str| wrong(&format!("[step.a]\nrun = \"x\"\n{rest}"));
    for (found, wanted) in [
        (wrong("[step.a]\nrum = \"x\""), "2:1: unknown key `rum`"),
        (wrong("[step.a]\nrun = \"x"), "2:"),
        (
            wrong("[step.a]\ntimeout = \"1m\""),
            "1:7: missing key `run`",
        ),
        (wrong("[step.a]\nrun = \"x\"\n[step.a]\nrun = \"y\""), "3:"),
        (wrong(""), "1:1: there are no steps"),
        (
            wrong("[step.\"a/b\"]\nrun = \"x\""),
            "1:7: \"a/b\" cannot be the name",
        ),
        (wrong("[step.\"a,b\"]\nrun = \"x\""), "cannot be the name"),
        (wrong("[step.\"..\"]\nrun = \"x\""), "cannot be the name"),
        (wrong("[step.\"\"]\nrun = \"x\""), "cannot be the name"),
        (step("run = \"y\""), "3:1: "),
        (step("inputs = [\"a\", \"b[\"]"), "3:16: the pattern"),
        (step("timeout = \"soon\""), "3:11: a number"),
        (step("timeout = \"0s\""), "3:11: "),
        (step("needs = [\"b\"]"), "3:10: there is no step \"b\""),
        (
            step("needs = \"a\""),
            "1:7: steps need each other: a needs a",
        ),
        (
            step("outputs = [\"a\", \"a/b\"]"),
            "3:17: one of the outputs",
        ),
        (step("outputs = \"../x\""), "3:11: "),
        (
            step("outputs = \"o/${x}\""),
            "3:11: \"x\" is no key of the matrix",
        ),
        (
            step("matrix = { a = [\"1\", \"1\"] }"),
            "3:22: \"1\" is there twice",
        ),
        (step("matrix = { a = [] }"), "3:12: \"a\" has no values"),
        (step("matrix = { a = 3.10 }"), "3:16: "),
        (
            step("env = { \"a-b\" = \"1\" }"),
            "3:9: \"a-b\" cannot be a variable",
        ),
        (
            step("env = { DK_X = \"1\" }"),
            "3:9: \"DK_X\" cannot be a variable",
        ),
        (step("retry = { times = 2, on = \"exit 0\" }"), "3:27: "),
        (step("retry = { times = 99 }"), "3:19: at most 10"),
        (
            step("rerun = \"always\""),
            "3:9: \"always\": say lost or never",
        ),
        (step("image = \"-v\""), "3:9: \"-v\" is no image"),
        (wrong("[step.a]\nrun = [\"make\"]"), "2:8: "),
        (
            wrong("[step.a]\nrun = [[]]"),
            "2:7: a command names no program",
        ),
        (
            wrong("# ü\n[step.\"ü\"]\nrun = \"\""),
            "3:7: there is nothing to run",
        ),
        (
            wrong("[step.a]\nrun = 5"),
            "2:7: invalid type: integer `5`, expected a script",
        ),
    ] {
        assert!(found.contains(wanted), "{found}\n  should hold\n{wanted}");
    }
}

#[test]
fn a_tree_cannot_give_itself_what_is_the_engines() {
    for (key, value) in [
        ("pool", "\"heavy\""),
        ("secrets", "[\"KEY\"]"),
        ("also", "{ repo = \"a/b\", ref = \"heads/x\" }"),
        ("after-status", "\"x\""),
    ] {
        let found = wrong(&format!("[step.a]\nrun = \"x\"\n{key} = {value}"));
        let wanted = format!("`{key}` is only for the engine's configuration to say");
        assert!(
            found.starts_with("3:") && found.contains(&wanted),
            "{found}"
        );
    }
    for key in [
        "project = []",
        "status-prefix = \"x\"",
        "[pool]\na = 1",
        "[web]\nname = \"x\"",
    ] {
        assert!(wrong(key).contains("unknown key"), "{key}");
    }
}

#[test]
fn every_fault_is_said_at_once_in_order() {
    let found = wrong(
        "[step.a]\nrun = \"\"\nneeds = \"x\"\n[step.b]\nrun = \"x\"\nneeds = \"c\"\n\
         [step.c]\nrun = \"x\"\nneeds = \"b\"",
    );
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(
        lines,
        [
            "2:7: there is nothing to run",
            "3:9: there is no step \"x\"",
            "4:7: steps need each other: b needs c needs b",
        ]
    );
}

#[test]
fn outputs_that_are_needed_together_do_not_collide() {
    let text = |b: &str, c: &str| {
        format!(
            "[step.b]\nrun = \"x\"\noutputs = \"{b}\"\n[step.c]\nrun = \"x\"\noutputs = \"{c}\"\n\
             [step.d]\nrun = \"x\"\nneeds = [\"b\", \"c\"]"
        )
    };
    assert!(wrong(&text("out", "out/x")).contains("9:15: \"c\" and \"b\" both make out/x"));
    assert!(wrong(&text("out", "out")).contains("both make out"));
    assert!(tree(&text("out", "out-x"), &Reserved::new()).is_ok());
    let cells = wrong(
        "[step.b]\nrun = \"x\"\nmatrix = { n = [1, 2] }\noutputs = \"o\"\n\
         [step.d]\nrun = \"x\"\nneeds = [\"b\"]",
    );
    assert!(
        cells.contains("7:10: \"b,n=2\" and \"b,n=1\" both make o"),
        "{cells}"
    );
}

#[test]
fn the_engines_file_is_checked_across_its_parts() {
    let step = "[project.step.a]\nrun = \"x\"\n";
    for (found, wanted) in [
        (wrong_engine(""), "2:8: a/b has no steps"),
        (
            wrong_engine(&format!("{step}pool = \"p\"")),
            "6:8: \"a\": there is no pool \"p\"",
        ),
        (
            wrong_engine(&format!("{step}secrets = \"S\"")),
            "6:11: no [[project.secret]] grants",
        ),
        (
            wrong_engine(&format!(
                "{step}[[project.secret]]\nname = \"S\"\nsteps = \"a\"\nrefs = \"pr/*\""
            )),
            "9:8: \"pr/*\": secrets are for heads/ and tags/ only",
        ),
        (
            wrong_engine(&format!(
                "{step}[[project.secret]]\nname = \"S\"\nsteps = \"b\"\nrefs = \"tags/*\""
            )),
            "8:9: there is no step \"b\"",
        ),
        (
            wrong_engine(&format!(
                "{step}also = {{ repo = \"c/d\", ref = \"heads/x\" }}"
            )),
            "6:17: c/d is depended on (also) but is no project here",
        ),
        (
            wrong_engine(&format!("{step}also = {{ repo = \"a/b\", ref = \"x\" }}")),
            "6:30: \"x\" is no ref",
        ),
        (
            wrong_engine(&format!("targets = \"master\"\n{step}")),
            "4:11: the pattern",
        ),
        (
            wrong_engine(&format!("untrusted = \"yes\"\n{step}")),
            "4:13: \"yes\": say approve",
        ),
        (
            wrong_engine(&format!("keep = {{ builds = 0 }}\n{step}")),
            "4:19: ",
        ),
        (
            wrong_engine(&format!(
                "{step}[[project]]\nrepo = \"a/b\"\nsource = \"y\"\nsteps-from = \"f\""
            )),
            "7:8: a/b is a project already",
        ),
        (
            wrong_engine(&format!("steps-from = \"f\"\n{step}")),
            "5:15: the step \"a\" is described in the tree",
        ),
        (wrong_engine("steps-from = \"\"\n"), "4:14: "),
        (
            engine("pool.a = 0").expect_err("refused").to_string(),
            "1:10: nobody",
        ),
        (
            engine("web.can-read = \"a:b\"")
                .expect_err("refused")
                .to_string(),
            "1:16: \"a:b\" is nobody",
        ),
        (
            engine("web.metrics-token = \"ab\"")
                .expect_err("refused")
                .to_string(),
            "1:21: 64 hex",
        ),
        (
            engine("status-prefix = \"/\"")
                .expect_err("refused")
                .to_string(),
            "1:17: ",
        ),
        (
            engine("metadata-branch = \"a..b\"")
                .expect_err("refused")
                .to_string(),
            "1:19: ",
        ),
        (
            engine("[[project]]\nrepo = \"a\"\nsource = \"\"")
                .expect_err("refused")
                .to_string(),
            "2:8: ",
        ),
        (
            engine("[[project]]\nrepo = \"a/b\"")
                .expect_err("refused")
                .to_string(),
            "1:1: missing key `source`",
        ),
    ] {
        assert!(found.contains(wanted), "{found}\n  should hold\n{wanted}");
    }
}

#[test]
fn too_much_is_refused() {
    let many: String = (0..=1000)
        .map(|n| format!("[step.s{n}]\nrun = \"x\"\n"))
        .collect();
    assert!(wrong(&many).contains("more than 1000 steps"));
    let wide = "[step.a]\nrun = \"x\"\n[step.a.matrix]\na = [1,2,3,4,5,6,7,8,9,10]\n\
                b = [1,2,3,4,5,6,7,8,9,10]\nc = [1,2,3,4,5,6,7,8,9,10]";
    assert!(wrong(wide).contains("1000 combinations are too many"));
    let long = format!("[step.{}]\nrun = \"x\"", "a".repeat(201));
    assert!(wrong(&long).contains("is too long"));
}

#[test]
fn a_file_tells_which_kind_it_is() {
    assert_eq!(kind("[step.a]\nrun = \"x\""), FileKind::Tree);
    assert_eq!(kind("[[project]]"), FileKind::Engine);
    assert_eq!(kind("not toml"), FileKind::Tree);
}

#[test]
fn every_key_is_in_the_schema() {
    let schema = schema().to_string();
    for key in [
        "metadata-branch",
        "steps-from",
        "after-status",
        "log-limit",
        "can-build",
    ] {
        assert!(schema.contains(&format!("\"{key}\"")), "{key}");
    }
}
