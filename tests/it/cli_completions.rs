//! Completions, asked as shells ask, and in the shells themselves.

use insta::assert_snapshot;

use crate::sandbox::{Sandbox, feed};

fn store() -> Sandbox {
    let sandbox = Sandbox::with_store();
    sandbox.commit(
        "master",
        "first",
        &[
            ("dir/file one", "the content of file one\n"),
            ("dir/sub/x", ""),
            ("top", "the content of top\n"),
        ],
    );
    sandbox.git(["-C", "db.git", "branch", "feature/x", "master"]);
    sandbox
}

/// Returns the candidates for the last of these words.
fn candidates(sandbox: &Sandbox, words: &[&str]) -> String {
    let mut command = sandbox.command([&["--", "dk"], words].concat());
    let output = command.env("COMPLETE", "fish").output().unwrap();
    sandbox.shown(&output)
}

#[test]
fn names_come_from_the_store() {
    let sandbox = store();
    assert_snapshot!(candidates(&sandbox, &["cat", "ma"]), @"master:");
    assert_snapshot!(candidates(&sandbox, &["cat", "master:"]), @"
    master:dir/
    master:top
    ");
    assert_snapshot!(candidates(&sandbox, &["cat", "master:dir/f"]), @"master:dir/file one");
    assert_snapshot!(candidates(&sandbox, &["branch", "head", "f"]), @"feature/x");
    assert_snapshot!(candidates(&sandbox, &["log", "master..f"]), @"master..feature/x");
    assert_snapshot!(candidates(&sandbox, &["branch", "create", "x", "--from=m"]), @"--from=master");
    assert_snapshot!(candidates(&sandbox, &["cat", "nope:"]), @"");
    assert_snapshot!(candidates(&sandbox, &["branch", "ren"]), @"rename	Rename a branch, and print its head");
    assert_snapshot!(candidates(&sandbox, &["-C", "nowhere", "cat", "ma"]), @"");
    assert!(candidates(&sandbox, &["ls", "--rec"]).starts_with("--recursive\t"));
}

#[test]
fn bash_completes() {
    let sandbox = store();
    let complete = |line: &str| {
        let script = format!(
            "{}\nCOMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'
             COMP_LINE={line:?} COMP_POINT=${{#COMP_LINE}}
             # As bash cuts words.
             COMP_WORDS=($(sed 's/[:=]/ & /g' <<< \"$COMP_LINE\"))
             [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             _dk && printf '<%s>' \"${{COMPREPLY[@]}}\"",
            sandbox.ok(["completions", "bash"])
        );
        sandbox.shown(&feed(
            &mut sandbox.program("bash", ["-s"]),
            script.as_bytes(),
        ))
    };
    assert_snapshot!(complete("dk cat ma"), @"<master:>%");
    assert_snapshot!(complete("dk cat master:"), @"<dir/><top>%");
    assert_snapshot!(complete("dk cat master:dir/f"), @r"<dir/file\ one>%");
    assert_snapshot!(complete("dk branch head "), @"<feature/x><master>%");
    assert_snapshot!(complete("dk branch create x --from=m"), @"<master>%");
}

#[test]
fn fish_completes() {
    let sandbox = store();
    if !installed(&sandbox, "fish") {
        return;
    }
    let complete = |line: &str| {
        let script = "dk completions fish | source; complete --do-complete $argv[1]";
        sandbox.shown(
            &sandbox
                .program("fish", ["--no-config", "-c", script, line])
                .output()
                .unwrap(),
        )
    };
    assert_snapshot!(complete("dk cat ma"), @"master:");
    assert_snapshot!(complete("dk cat master:dir/"), @"
    master:dir/file one
    master:dir/sub/
    ");
}

/// zsh completes only while a line is edited, in a terminal of its own: what
/// the completed line prints shows what it was.
#[test]
fn zsh_completes() {
    let sandbox = store();
    if !installed(&sandbox, "zsh") {
        return;
    }
    let complete = |typed: &str| {
        let script = format!(
            "zmodload zsh/zpty
             zpty shell zsh -f -i
             zpty -w shell 'PS1=; autoload -U compinit; compinit -D -u'
             zpty -w shell 'eval \"$(dk completions zsh)\"; print re\"\"ady'
             zpty -r shell text '*ready*'
             zpty -w -n shell $'{typed}\\t\\n'
             zpty -w shell 'print do\"\"ne'
             zpty -r shell text '*done*'
             print -r -- $text"
        );
        let shown = sandbox.program("zsh", ["-f", "-c", &script]).output();
        sandbox.shown(&shown.unwrap())
    };
    let shown = complete("dk cat master:t");
    assert!(shown.contains("the content of top"), "{shown}");
    let shown = complete("dk cat master:dir/f");
    assert!(shown.contains("the content of file one"), "{shown}");
    let shown = complete("dk --json branch head fea");
    assert!(shown.contains("{\"name\":\"feature/x\""), "{shown}");
}

fn installed(sandbox: &Sandbox, shell: &str) -> bool {
    let found = sandbox.program(shell, ["--version"]).output().is_ok();
    if !found {
        println!("{shell} is not installed: its completions are not tried");
    }
    found
}
