//! `dk ci check`: the plan of a configuration, and what is wrong with one.

use crate::sandbox::Sandbox;

const TREE: &str = r#"
[step.test]
needs = "build"
run = "./out/app"
inputs = "tests"
matrix = { locale = ["C", "de_DE"], os = "x/y" }
image = "debian:12"

[step.build]
run = "make"
inputs = ["src/**", "!src/doc"]
outputs = "out/app"
"#;

#[test]
fn the_plan_has_a_line_for_each_cell_in_order() {
    let sandbox = Sandbox::new();
    sandbox.write(".dk-ci.toml", TREE);
    insta::assert_snapshot!(sandbox.dk(["ci", "check"]), @r"
    build  reads src/**, !src/doc  makes out/app
    test,locale=C,os=x%2Fy  after build  reads tests  in debian:12
    test,locale=de_DE,os=x%2Fy  after build  reads tests  in debian:12
    ");
    let json = sandbox.ok(["ci", "check", "--json"]);
    insta::assert_snapshot!(json.lines().next().unwrap(), @r#"{"project":null,"cell":"build","step":"build","needs":[],"inputs":["src/**","!src/doc"],"outputs":["out/app"],"image":null,"timeout":3600}"#);
}

#[test]
fn every_fault_has_its_place_and_the_status_is_2() {
    let sandbox = Sandbox::new();
    sandbox.write(
        ".dk-ci.toml",
        "[step.a]\nrun = \"x\"\nneeds = \"b\"\n\n[step.b]\nrun = \"\"\nneeds = \"a\"\npool = \"p\"\n",
    );
    insta::assert_snapshot!(sandbox.dk(["ci", "check"]), @r#"
    ! dk: .dk-ci.toml:1:7: steps need each other: a needs b needs a
    ! dk: .dk-ci.toml:6:7: there is nothing to run
    ! dk: .dk-ci.toml:8:8: `pool` is only for the engine's configuration to say
    exit status 2
    "#);
    sandbox.write("bad.toml", "[step.a]\nrum = \"x\"\n");
    let said = sandbox.dk(["ci", "check", "bad.toml"]);
    assert!(
        said.starts_with("! dk: bad.toml:2:1: unknown key `rum`, expected one of `run`"),
        "{said}"
    );
    insta::assert_snapshot!(sandbox.dk(["ci", "check", "missing.toml"]), @r"
    ! dk: cannot read missing.toml
    ! caused by: No such file or directory (os error 2)
    exit status 1
    ");
}

#[test]
fn the_engines_file_is_told_from_a_trees() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "ci.toml",
        "[[project]]\nrepo = \"me/app\"\nsource = \"/srv/app.git\"\nsteps-from = \".dk-ci.toml\"\n\n\
         [[project]]\nrepo = \"me/lib\"\nsource = \"https://example.org/lib.git\"\ntargets = \"heads/*\"\n\
         step.test.run = \"make test\"\n",
    );
    insta::assert_snapshot!(sandbox.dk(["ci", "check", "ci.toml"]), @r"
    me/app: heads/**, tags/**, pr/* of /srv/app.git
      steps: .dk-ci.toml of the tested tree
    me/lib: heads/* of https://example.org/lib.git
      test
    ");
}
