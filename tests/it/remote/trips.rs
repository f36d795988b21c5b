//! How often a client has to wait for a server that is far away.
//!
//! The clock is a made up one: it stands still while anybody works, and goes on
//! when all wait for the line, which takes a millisecond each way. So the time
//! a call took counts its round trips, on any machine.

use std::sync::Arc;
use std::time::Duration;

use datakit::client::remote::{Options, Remote};
use datakit::client::*;
use datakit::model::*;
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::client_contract::{at_hand, branch, path};
use crate::remote::cuts::ticking;
use crate::remote::proxy::Proxy;
use crate::remote::served::Served;

/// Each way.
const DELAY: Duration = Duration::from_millis(1);

struct Far {
    remote: Remote,
    _proxy: Arc<Proxy>,
}

impl Far {
    /// Returns what a call gives, and its round trips.
    async fn trips<T>(&self, call: impl Future<Output = Result<T>>) -> (T, u32) {
        let begun = Instant::now();
        let given = call.await.unwrap();
        let trips = begun
            .elapsed()
            .as_micros()
            .div_ceil((2 * DELAY).as_micros());
        (given, trips as u32)
    }
}

fn far(test: impl AsyncFnOnce(Far)) {
    far_with(Options::default(), test);
}

fn far_with(options: Options, test: impl AsyncFnOnce(Far)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let served = Served::memory();
        let proxy = Proxy::new(&served, DELAY);
        let begun = Instant::now();
        let remote = proxy.remote(options).await;
        // The dialect, and all else.
        assert_eq!(begun.elapsed(), 2 * 2 * DELAY);
        let _proxy = proxy.clone();
        test(Far { remote, _proxy }).await;
    });
}

fn file(number: usize) -> TreePath {
    path(&format!("folder {}/{number}", number % 40))
}

/// Writes so many files, of so many bytes each.
fn many(files: usize, bytes: usize) -> Edits {
    Edits::new(move |sink| {
        for number in 0..files {
            let text = format!("{number}\n").repeat(bytes / 4);
            sink.edit(Edit::Write {
                path: file(number),
                kind: FileKind::Normal,
                content: Content::Bytes(text.as_bytes()),
            })?;
        }
        Ok(())
    })
}

#[test]
fn bulk_takes_a_few_round_trips() {
    far(async |far| {
        let dk: &dyn Client = &far.remote;
        let main = branch("main");
        let edit = dk.edit(&main, many(2000, 2000), CommitOptions::default());
        let (head, trips) = far.trips(edit).await;
        assert!(trips <= 3, "an import: {trips}");

        let at = At::Commit(head);
        let walk = dk.walk(&at, &TreePath::root(), true).try_collect();
        let (items, trips) = far.trips(walk).await;
        let items: Vec<Item> = items;
        assert_eq!(items.len(), 2000);
        assert!(trips <= 3, "a listing: {trips}");

        let ids: Vec<ObjectId> = items[..200].iter().map(|item| item.entry.id).collect();
        let (blobs, trips) = far.trips(dk.open_blobs(&ids)).await;
        assert_eq!(blobs.len(), 200);
        assert!(trips <= 6, "two hundred blobs: {trips}");

        let paths: Vec<TreePath> = (0..50).map(file).collect();
        let opening = try_join_all(paths.iter().map(|path| dk.open(&at, path)));
        let (_, trips) = far.trips(opening).await;
        assert!(trips <= 4, "fifty files: {trips}");
    });
}

#[test]
fn small_calls_take_one_or_two() {
    far(async |far| {
        let dk: &dyn Client = &far.remote;
        let main = branch("main");
        let edit = dk.edit(&main, many(1, 10), CommitOptions::default());
        let (head, trips) = far.trips(edit).await;
        assert_eq!(trips, 1, "an edit");
        let at = At::Commit(head);
        assert_eq!(far.trips(dk.head(&main)).await.1, 1, "a head");
        let rev = Rev::new("main").unwrap();
        assert_eq!(far.trips(dk.resolve(&rev)).await.1, 1, "a revision");
        assert_eq!(far.trips(dk.commit(&head)).await.1, 1, "a commit");
        assert_eq!(far.trips(dk.stat(&at, &file(0))).await.1, 1, "a stat");
        assert_eq!(far.trips(dk.open(&at, &file(0))).await.1, 2, "a file");
        let root = TreePath::root();
        assert_eq!(far.trips(dk.list(&at, &root, true)).await.1, 1, "a folder");
        assert_eq!(far.trips(dk.branches()).await.1, 1, "all branches");
        assert_eq!(far.trips(dk.diff(&at, &at, &root)).await.1, 1, "changes");
        let query = LogQuery {
            from: vec![head],
            ..LogQuery::default()
        };
        let log = dk.log(query).try_collect::<Vec<_>>();
        assert_eq!(far.trips(log).await.1, 1, "history");
        let (begun, trips) = far.trips(dk.begin(&main, None, None, None)).await;
        assert_eq!(trips, 1, "a transaction");
        let (_, trips) = far.trips(dk.tx_edit(&begun.id, many(1, 10))).await;
        assert_eq!(trips, 1, "an edit of it");
        let commit = dk.tx_commit(&begun.id, CommitOptions::default());
        assert_eq!(far.trips(commit).await.1, 1, "its commit");
    });
}

#[test]
fn a_large_file_goes_both_ways() {
    far(async |far| {
        let dk: &dyn Client = &far.remote;
        const SIZE: u64 = 8 << 20;
        let edits = Edits::new(|sink| {
            sink.edit(Edit::Write {
                path: file(0),
                kind: FileKind::Normal,
                content: Content::Bytes(&vec![7; SIZE as usize]),
            })
        });
        let main = branch("main");
        let edit = dk.edit(&main, edits, CommitOptions::default());
        let (head, trips) = far.trips(edit).await;
        assert!(trips <= 3, "written: {trips}");
        let (at, file) = (At::Commit(head), file(0));
        let (mut reader, trips) = far.trips(dk.open(&at, &file)).await;
        assert_eq!(trips, 2, "opened");
        // The clock waits for threads, and this one for the line: so the time
        // is moved by hand, and tells nothing.
        let read = tokio::task::spawn_blocking(move || {
            std::io::copy(&mut reader, &mut std::io::sink()).unwrap()
        });
        assert_eq!(ticking(read).await, SIZE);
    });
}

#[test]
fn the_beginning_of_a_file_is_at_hand_in_small_messages_too() {
    let mut options = Options::default();
    options.connection.msize = 16 << 10;
    far_with(options, async |far| {
        let dk: &dyn Client = &far.remote;
        let main = branch("main");
        let edit = dk.edit(&main, many(1, 200_000), CommitOptions::default());
        let at = At::Commit(edit.await.unwrap());
        let reader = dk.open(&at, &file(0)).await.unwrap();
        let (start, _) = at_hand(reader);
        assert!(start.chunks_exact(2).all(|line| line == b"0\n"));
    });
}
