//! Secrets are had, and not seen.

use super::*;

const KEY: &str = "s3cr3t-of-the-house";

async fn with_secret(world: &World, script: &str) -> Job {
    let mut job = world.job(script, &[("a", "x")]).await;
    job.secrets.push(Secret {
        name: "KEY".into(),
        value: KEY.into(),
    });
    job
}

#[tokio::test]
async fn a_secret_is_hidden_in_the_log_however_it_is_printed() {
    let world = World::new();
    let script = "printf '<%s>' \"$KEY\"; printf %s \"$KEY\" | base64; printf s3cr3; sleep 0.1; \
                  echo t-of-the-house; [ \"$KEY\" != s3cr3t-of-the-house ]";
    let (ended, log) = world.run(with_secret(&world, script).await).await;
    // What names the command hides it, too.
    assert_eq!(
        shown(&ended),
        "failure: Command \"printf '<%s>' \\\"$KEY\\\"; printf %s \\\"$KEY\\\" | base64; printf \
         s3cr3; sleep 0.1; echo t-of-the-house; [ \\\"$KEY\\\" != *** ]\" exited with status 1 \
         (Some(1))"
    );
    assert!(
        !log.contains("t-of-the-house\n") && !log.contains(KEY),
        "{log}"
    );
    let (_, printed) = log.split_once('\n').unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines, ["<***>***", "***"]);
}

#[tokio::test]
async fn an_output_that_holds_a_secret_fails_the_step() {
    let world = World::new();
    for (script, output, text) in [
        ("echo $KEY > o", "o", "output o holds a secret"),
        (
            "echo user:$KEY | base64 > o",
            "o",
            "output o holds a secret",
        ),
        ("mkdir o; ln -s $KEY o/l", "o", "output o/l holds a secret"),
        ("mkdir o; echo > o/$KEY", "o", "output o/*** holds a secret"),
        (
            "head -c 131060 /dev/zero > o; echo $KEY >> o",
            "o",
            "output o holds a secret",
        ),
    ] {
        let mut job = with_secret(&world, script).await;
        job.outputs = vec![path(output)];
        let (ended, _) = world.run(job).await;
        assert_eq!(shown(&ended), format!("failure: {text} (None)"), "{script}");
    }
    let mut job = with_secret(&world, "echo fine > o").await;
    job.outputs = vec![path("o")];
    assert_eq!(world.made(job).await.0, ["file value/o fine"]);
}

#[tokio::test]
async fn a_secret_is_in_no_list_of_processes() {
    let world = World::new();
    let script = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c 's[3]cr3t' || true";
    let (_, log) = world.made(with_secret(&world, script).await).await;
    assert!(log.ends_with("\n0\n"), "{log}");
}
