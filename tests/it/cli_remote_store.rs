//! Every command against a served store: what it prints, and how it ends, is
//! what it prints for the same store on disk.

use std::sync::Arc;
use std::sync::mpsc;

use datakit::store::engine::Durability;
use datakit::store::git::Git;

use crate::remote::served::Served;
use crate::sandbox::Sandbox;

/// Serves the sandbox's `db.git` for as long as it lives.
struct Server {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a server, and makes it the store of all later commands.
    fn of(sandbox: &mut Sandbox) -> Self {
        let path = sandbox.join("db.git");
        let address = format!("unix://{}", sandbox.join("socket").display());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, listening) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let engine = Git::open(&path, Durability::Strict, false).unwrap();
                let served = Served::new(Arc::new(engine));
                ready.send(served.listen(&address).await).unwrap();
                // Also when the sender is dropped.
                let _ = stopped.await;
            });
        });
        sandbox.set("DK_STORE", &listening.recv().unwrap());
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was shown already.
            let _ = thread.join();
        }
    }
}

/// Lines of shell, run one after the other in both places.
const LINES: &[&str] = &[
    "dk branch list -v; dk branch head master",
    "date -d @0 | dk put master:now -m tick -x",
    "echo one | dk put master:d/one -m 'one more'; echo two | dk put 'master:d/two words' -m 2",
    "dk branch create side; dk branch create 'feature/ü' --from master~1; dk branch list",
    "dk branch create master; dk branch create a/../b; dk branch create side/x",
    "dk branch -v list; dk branch list -a; dk --json branch list",
    "dk ls master; dk ls -l master; dk ls -r master; dk ls -rlz master:d | tr '\\0' '\\n'; dk --json ls -l master",
    "dk ls nothing; dk ls master:nothing; dk ls master:now; dk ls master~9",
    "dk cat master:now master:d/one master:nothing master:d; dk --json cat master:now",
    "dk cat master:d/one master~1:now side:now; dk cat deadbeef:x; dk cat master:'d/two words'",
    "dk stat master:now master:d 2>&1; dk stat master:now; dk stat master:d; dk --json stat master:d/one",
    "dk tree master; dk tree master:d",
    "dk log master; dk log -n 1 -p master; dk log --reverse --oneline master -- d; dk --json log -n 2 master",
    "dk log nothing; dk log master~2..master 2>&1; dk log master -- nothing",
    "dk show master; dk --json show master~1",
    "dk diff master~1 master; dk diff --stat master~2 master; dk diff --patch master~3 master; dk --json diff master~2",
    "dk diff --exit-code master master; dk diff --exit-code side master; dk diff side nothing",
    "dk export master out && find out | sort && cat out/now; dk export master:d - | tar t; dk export nothing out2",
    "mkdir -p in/x/y && echo 1 >in/a && echo 2 >in/x/y/b && ln -s a in/l && chmod +x in/a",
    "dk import master:imported in -m import; tar c in | dk import side - -m tar; dk ls -rl side; dk import side nowhere",
    "seq 1 200000 | dk put master:large -m large; dk cat master:large | sha1sum; dk cat master:large | head -2",
    "head -c 3000000 /dev/zero | tr '\\0' x | dk put master:huge -m huge; dk cat master:huge | sha1sum; dk diff --stat master~1 master",
    "dk rm master:now -m gone; dk rm master:nothing; dk rm master:huge master:large -m both; dk ls master",
    "dk mv master:d e -m moved; dk mv master:e/one e/1; dk ls -r master; dk mv master:x y",
    "EDITOR='sed -i s/o.e/ONE/' dk edit master:e/1 -m edited; dk cat master:e/1; EDITOR=true dk edit master:e/1",
    "dk branch ff side master; dk branch reset side master~1; dk branch ff side master; dk branch head side",
    "dk branch reset side master --expect deadbeef; dk branch reset side master --expect $(dk branch head master); dk branch reset side nothing",
    "dk branch rename side other; dk branch rename nothing x; dk branch rename other master; dk branch delete other nothing",
    "dk branch create one; dk branch create two; echo 1 | dk put one:f -m 1; echo 2 | dk put two:f -m 2; echo 3 | dk put two:g -m 3",
    "dk merge one two; dk merge one two --dry-run; dk merge one two --theirs -m merged; dk cat one:f; dk merge two one; dk merge one nothing",
    "echo x | dk put one:f --expect deadbeef; echo x | dk put one:f -m same; echo x | dk put one:f -m same; echo x | dk put one:e/../f",
    "dk tx begin one --name t; echo 9 | dk tx write t f; echo 8 | dk tx append t f; dk tx link t l f; dk tx mkdir t d; echo 5 | dk tx write t d/e -x",
    "dk tx begin one --name t; dk tx begin one --name ..; dk tx begin one --from nothing",
    "dk tx ls -r t; dk tx cat t f d/e; dk tx diff t; dk tx diff t two; dk tx mv t d/e h; dk tx chmod t -x h; dk tx rm t l; dk tx rm t nothing",
    "dk tx status t | grep -v '^begun\\|^edited'; dk tx message t hello; dk tx message t; dk tx parents t",
    "echo '{\"op\":\"write\",\"path\":\"j\",\"text\":\"json\"}' | dk tx apply t -; dk tx import t --at imp in; dk tx ls -r t",
    "dk tx commit t; dk log -n 1 one; dk tx commit t; echo x | dk tx write t f",
    "dk tx begin one --name c; echo mine | dk tx write c f; echo theirs | dk put one:f -m theirs; dk tx commit c; dk tx conflicts c",
    "dk tx resolve c f --ours; dk tx conflicts c; dk tx commit c -m resolved; dk cat one:f",
    "dk tx begin one --name m; dk tx merge m two; dk tx merge m nothing; dk tx parents m one two; dk tx open | cut -f1,2 | sort; dk tx abort m gone",
    "dk tx begin one --name p1; dk tx begin one --name p2; dk tx ls p; dk tx cat p1 f; dk tx abort p1 p2; dk tx gc --older-than 0s | cut -f1,2 | sort",
    "printf 'ls\\ncat f\\nstatus\\n' | dk tx shell one 2>&1 | sed 's/tx [a-z0-9]*/tx ID/; s/[a-z0-9]\\{10\\}/ID/g' | head -5",
    "timeout 10 dk watch --current one; timeout 10 dk watch -n 2 --since one~2 one; timeout 10 dk watch --json -n 1 --since one~1 one",
    "timeout 10 dk watch --since deadbeef one; dk watch --timeout 0.1s one; timeout 10 dk watch -n 1 --commits --since one~3 --latest one",
    "timeout 10 dk watch --cursor seen --current one; cat seen; timeout 10 dk watch --exec sh -c 'echo $DK_STORE | cut -c1-0; echo $DK_COMMIT; tr \"\\0\" \" \"' -n 1 --since one~1 one",
    "git init -q --bare -b master far.git; dk remote add far far.git; dk remote list; dk --json remote list; dk remote add far x; dk remote remove none",
    "dk push far one; dk push far nothing; git -C far.git rev-parse one; dk fetch far; dk branch list -a; dk fetch nowhere.git; dk remote remove far; dk remote list",
    "dk gc | cut -f2; dk gc --dry-run | cut -f2; dk fsck; dk --json fsck",
    "dk --author 'Bob <b@c>' put one:who in/a -m by; dk log -n 1 one; GIT_AUTHOR_NAME=Eve dk put one:who in/x/y/b -m by; dk log -n 1 one",
    "dk log --json one | wc -l; dk ls -rz one | tr '\\0' '\\n'; dk log one | head -1",
    "dk put one:-; dk put; dk nonsense; dk ls one --nonsense",
];

#[test]
fn every_command_says_the_same_of_a_served_store() {
    let here = Sandbox::with_store();
    let mut there = Sandbox::with_store();
    for sandbox in [&here, &there] {
        sandbox.commit("master", "first", &[("a", "1\n"), ("d/b", "2\n")]);
    }
    let _server = Server::of(&mut there);
    let mut differ = String::new();
    for line in LINES {
        let (local, served) = (here.sh(line), there.sh(line));
        if local != served {
            differ += &format!("--- {line}\nhere:\n{local}there:\n{served}\n");
        }
    }
    assert!(differ.is_empty(), "{differ}");
    assert_eq!(
        here.git(["-C", "db.git", "for-each-ref"]),
        there.git(["-C", "db.git", "for-each-ref"])
    );
    there.git(["-C", "db.git", "fsck", "--strict"]);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let mut sandbox = Sandbox::new();
    let socket = sandbox.join("socket");
    sandbox.set("DK_STORE", &format!("unix://{}", socket.display()));
    insta::assert_snapshot!(sandbox.dk(["ls", "master"]), @"
    ! dk: cannot connect to unix://$DIR/socket
    ! caused by: No such file or directory (os error 2)
    ! hint: is 'dk serve' running there?
    exit status 1
    ");
    sandbox.set("DK_STORE", "tcp://127.0.0.1:1");
    insta::assert_snapshot!(sandbox.dk(["branch"]), @"
    ! dk: cannot connect to tcp://127.0.0.1:1
    ! caused by: Connection refused (os error 111)
    ! hint: is 'dk serve' running there?
    exit status 1
    ");
    sandbox.set("DK_STORE", "tcp://127.0.0.1:x");
    insta::assert_snapshot!(sandbox.dk(["branch"]), @"
    ! dk: tcp://127.0.0.1:x: a port is a number up to 65535, as in tcp://HOST:5640
    exit status 1
    ");
    sandbox.set("DK_STORE", "vsock://2:1");
    insta::assert_snapshot!(sandbox.dk(["branch"]), @"
    ! dk: cannot open vsock://2:1: vsock is not supported by this version of dk
    ! hint: name a Git repository by its path, or a server as tcp://HOST:PORT or unix:///PATH
    exit status 1
    ");
    sandbox.set("DK_STORE", "tcp://127.0.0.1:1");
    insta::assert_snapshot!(sandbox.dk(["--durability", "none", "branch"]), @"
    ! dk: --durability is not for tcp://127.0.0.1:1 to be told
    ! hint: what a change survives is up to the server that makes it
    exit status 2
    ");
    insta::assert_snapshot!(sandbox.dk(["init"]), @"
    ! dk: cannot open tcp://127.0.0.1:1: a path on this machine is needed here
    ! hint: name a Git repository by its path, or a server as tcp://HOST:PORT or unix:///PATH
    exit status 2
    ");
}
