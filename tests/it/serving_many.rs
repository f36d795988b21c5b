//! Ten thousand streams that nothing happens to, on a thousand connections.

use std::time::{Duration, Instant};

use datakit::ninep::client::{Connection, Endpoint, File, Options, Ticket, connect};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::sandbox::{Sandbox, eventually};
use crate::serving::{Server, http};

const CONNECTIONS: usize = 1000;
const EACH: usize = 10;

/// One connection, and what waits on it: nothing comes of it.
struct Waiting {
    _reads: Vec<(File, Ticket)>,
    _connection: Connection,
}

async fn wait(endpoint: &Endpoint, number: usize) -> Waiting {
    let stream = connect(endpoint).await.unwrap();
    let connection = Connection::new(stream, &Options::default()).await.unwrap();
    let opening = (number..number + EACH).map(|number| read(&connection, number));
    let reads = join_all(opening).await;
    Waiting {
        _reads: reads,
        _connection: connection,
    }
}

async fn read(connection: &Connection, number: usize) -> (File, Ticket) {
    let names: &[&[u8]] = match number % 3 {
        0 => &[b"branch", b"main", b"head.live"],
        1 => &[b"branch", b"main", b"watch", b"dir.node", b"tree.live"],
        _ => &[b"branch", b"main", b"since", b"head"],
    };
    let root = connection.root();
    let mut file = connection.open(root, names, 0).await.unwrap();
    file.ready().await.unwrap();
    let mut at = 0;
    if number % 3 < 2 {
        // What it is now, and that this is all.
        let value = file.wait(0, 100).await.unwrap().data(100).await.unwrap();
        at = value.len() as u64;
        let marker = file.wait(at, 100).await.unwrap().data(100).await.unwrap();
        assert!(at > 0 && marker.is_empty());
    }
    let read = file.wait(at, 100).await.unwrap();
    (file, read)
}

/// A line of /proc/PID/status, in KiB.
fn status(server: &Server, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = found.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

/// The processor time it has had, in ticks of 10 ms.
fn ticks(server: &Server) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_idle_streams_cost_nothing_and_leave_nothing() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let sandbox = Sandbox::with_store();
    sandbox.commit("main", "one", &[("dir/file", "content")]);
    let server = Server::ready(
        &sandbox,
        &["--listen", "unix://s", "--metrics", "127.0.0.1:0"],
    );
    let metrics = server.says("metrics at ");
    let endpoint: Endpoint = format!("unix://{}", sandbox.join("s").display())
        .parse()
        .unwrap();
    let gauge = |name: &str| {
        let (_, _, body) = http(&metrics, "/metrics");
        let start = format!("datakit_{name} ");
        let line = body.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("{name} in {body}"))
            .parse::<usize>()
            .unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // What the first of everything takes is there before.
    let first = runtime.block_on(wait(&endpoint, 0));
    let before = status(&server, "RssAnon");
    let waiting: Vec<Waiting> = runtime.block_on(async {
        let opening = (1..CONNECTIONS).map(|number| wait(&endpoint, number));
        stream::iter(opening).buffered(20).collect().await
    });
    let each = (status(&server, "RssAnon") - before) as f64 / ((CONNECTIONS - 1) * EACH) as f64;
    println!("a stream, with its share of the connection, takes {each:.2} KiB");
    assert!(each < 8.0, "{each} KiB");
    assert_eq!(gauge("connections"), CONNECTIONS);
    assert_eq!(gauge("streams"), CONNECTIONS * EACH);
    // Whatever their opening set going has come to its end.
    let idle = eventually("a second without work", || {
        let began = (ticks(&server), Instant::now());
        std::thread::park_timeout(Duration::from_secs(1).saturating_sub(began.1.elapsed()));
        (ticks(&server) - began.0 <= 1).then(|| began.1.elapsed())
    });
    println!("no more than 10 ms of work in {idle:?}");
    // As a kill would: no clunk, no goodbye.
    runtime.shutdown_background();
    eventually("all connections' end", || {
        (gauge("connections") == 0).then_some(())
    });
    eventually("all streams' end", || (gauge("streams") == 0).then_some(()));
    assert_eq!((gauge("fids"), gauge("transactions")), (0, 0));
    drop((first, waiting));
    server.stop();
}
