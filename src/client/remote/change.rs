//! Changes: requests that are sent as one text to a call file.
//!
//! Edits that may block are printed by a thread, block by block, through a
//! channel of two; this side sends the blocks with as many unanswered as the connection
//! allows. The last block has the last line, and with it goes the read of the
//! result, so that a small change is one round trip. Until it is sent, nothing
//! has happened; after that the server is asked what came of the request where
//! its answer was lost with the connection.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::client::*;
use crate::model::Kind;
use crate::model::text::apply::{
    Finish, Head, Operation, Outcome, PrintError, read_outcome, write_edit, write_finish,
    write_head,
};
use crate::model::text::{read_merged, take_transaction};
use crate::ninep::client::{self as ninep, File, Ticket};

use super::failure::{self, Context, log, status};
use super::link::Session;
use super::{Remote, TRIES, WHOLE, one_id};

/// Bytes of a request that are sent together.
const BLOCK: usize = 256 << 10;

/// Where a request goes.
#[derive(Clone)]
struct Place {
    dir: &'static str,
    name: Vec<u8>,
    /// The directory may have to be made.
    make: bool,
    file: &'static str,
}

impl Place {
    fn branch(branch: &BranchName, file: &'static str) -> Self {
        Self {
            dir: "branch",
            name: Remote::element(branch),
            make: true,
            file,
        }
    }
}

/// What is asked for.
struct Asked {
    head: Head,
    edits: Option<Edits>,
    finish: Finish,
}

/// A block of a request; the last one completes it.
enum Block {
    More(Bytes),
    Last(Bytes),
}

/// Why printing ended early.
enum Ended {
    /// Nobody takes its blocks any more: they know why.
    Unwanted,
    Failed(Error),
}

impl Ended {
    fn reason(self) -> Failed {
        Failed::Here(match self {
            Self::Failed(error) => error,
            Self::Unwanted => Error::new(Kind::Invalid, "an edit was refused"),
        })
    }
}

impl Remote {
    pub(super) async fn commit_edits(
        &self,
        branch: &BranchName,
        edits: Edits,
        mut options: CommitOptions,
    ) -> Result<ObjectId> {
        options.author = self.author(options.author);
        let what = Context::change(format!("{branch} was changed"), log(branch));
        let head = Head {
            options,
            ..Head::default()
        };
        let asked = Asked {
            head,
            edits: Some(edits),
            finish: Finish::Commit,
        };
        let place = Place::branch(branch, "apply");
        one_id(&self.call(place, asked, &what).await?)
    }

    pub(super) async fn merge_branch(
        &self,
        branch: &BranchName,
        theirs: ObjectId,
        mut options: MergeOptions,
    ) -> Result<Merged> {
        options.commit.author = self.author(options.commit.author);
        let what = Context::change(format!("{theirs} was merged into {branch}"), log(branch));
        let head = Head {
            theirs: Some(theirs),
            favour: options.favour,
            dry_run: options.dry_run,
            options: options.commit,
            ..Head::default()
        };
        let asked = Asked {
            head,
            edits: None,
            finish: Finish::Done,
        };
        let place = Place::branch(branch, "merge");
        let text = self.call(place, asked, &what).await?;
        read_merged(&text).ok_or_else(|| failure::nonsense("a merge"))
    }

    pub(super) async fn begin_transaction(
        &self,
        branch: &BranchName,
        from: Option<ObjectId>,
        name: Option<TransactionId>,
        author: Option<Signature>,
    ) -> Result<Transaction> {
        let what = Context::change(
            format!("a transaction on {branch} was begun"),
            format!("dk tx open {branch}"),
        );
        let mut head = Head {
            from,
            name,
            ..Head::default()
        };
        head.options.author = self.author(author);
        let asked = Asked {
            head,
            edits: None,
            finish: Finish::Done,
        };
        let place = Place::branch(branch, "begin");
        transaction(&self.call(place, asked, &what).await?)
    }

    /// Sends a request to a transaction.
    async fn apply(
        &self,
        tx: &TransactionId,
        (head, edits, finish): (Head, Option<Edits>, Finish),
        what: &Context,
    ) -> Result<Vec<u8>> {
        let place = Place {
            dir: "tx",
            name: super::exactly(tx),
            make: false,
            file: "apply",
        };
        let asked = Asked {
            head,
            edits,
            finish,
        };
        self.call(place, asked, what).await
    }

    pub(super) async fn edit_transaction(
        &self,
        tx: &TransactionId,
        edits: Edits,
    ) -> Result<Transaction> {
        let what = Context::change(format!("transaction {tx} was changed"), status(tx));
        let request = (Head::default(), Some(edits), Finish::Done);
        transaction(&self.apply(tx, request, &what).await?)
    }

    pub(super) async fn resolve_conflicts(
        &self,
        tx: &TransactionId,
        paths: &[TreePath],
        side: Side,
    ) -> Result<Transaction> {
        let what = Context::change(
            format!("conflicts of transaction {tx} were resolved"),
            status(tx),
        );
        let head = Head {
            resolve: Some((side, paths.to_vec())),
            ..Head::default()
        };
        transaction(&self.apply(tx, (head, None, Finish::Done), &what).await?)
    }

    pub(super) async fn set_transaction(
        &self,
        tx: &TransactionId,
        message: Option<Vec<u8>>,
        parents: Option<Vec<ObjectId>>,
    ) -> Result<Transaction> {
        let what = Context::change(format!("transaction {tx} was changed"), status(tx));
        let mut head = Head {
            parents,
            ..Head::default()
        };
        head.options.message = message;
        transaction(&self.apply(tx, (head, None, Finish::Done), &what).await?)
    }

    pub(super) async fn commit_transaction(
        &self,
        tx: &TransactionId,
        options: CommitOptions,
    ) -> Result<ObjectId> {
        let what = Context::change(format!("transaction {tx} was committed"), status(tx));
        // Asked again, a transaction that went through says so and does
        // nothing; one that is kept open would be committed once more.
        let mut tries = if options.keep { 0 } else { TRIES };
        loop {
            let head = Head {
                options: options.clone(),
                ..Head::default()
            };
            let asked = self.apply(tx, (head, None, Finish::Commit), &what).await;
            match asked {
                Err(error) if tries > 0 && failure::is_unknown(&error) => {
                    tries -= 1;
                    // Fails where no connection can be had any more.
                    if self.core.session().await.is_err() {
                        return Err(error);
                    }
                }
                result => return one_id(&result?),
            }
        }
    }

    /// Reads the record of a transaction.
    pub(super) async fn meta(&self, name: &[u8]) -> Result<Transaction> {
        let what = Context::file("tx", name);
        let name = std::sync::Arc::new(name.to_vec());
        let text = self.ask(what, move |session| {
            let name = name.clone();
            async move {
                let file = session.open("tx", &[&name, b"meta"], 0).await?;
                file.whole(0, WHOLE).await
            }
        });
        transaction(&text.await?)
    }

    /// Sends a request; returns its result, also where the answer was lost
    /// and the server can be asked for it.
    async fn call(&self, place: Place, mut asked: Asked, what: &Context) -> Result<Vec<u8>> {
        let session = self.core.session().await?;
        let (operation, began) = (Operation::new(), Instant::now());
        asked.head.operation = Some(operation.clone());
        let mut complete = false;
        match send(&session, &place, asked, &mut complete).await {
            Ok(result) => Ok(result),
            Err(Failed::Here(error)) => Err(error),
            Err(Failed::There(error)) if error.lost && complete => {
                match self.outcome(&place, operation, began).await {
                    None => Err(self.core.unknown(what, &error)),
                    Some(None) => Err(failure::not_done(&self.core.url, &error)),
                    Some(Some(result)) => result.map_err(Into::into),
                }
            }
            Err(Failed::There(error)) if error.lost => {
                Err(failure::not_done(&self.core.url, &error))
            }
            Err(Failed::There(error)) => Err(self.core.error(what, error)),
        }
    }

    /// Asks what came of a request that was sent to its end.
    async fn outcome(&self, place: &Place, mut operation: Operation, began: Instant) -> Outcome {
        for _ in 0..TRIES {
            let session = self.core.session().await.ok()?;
            operation.again = Some(began.elapsed());
            let head = Head {
                operation: Some(operation.clone()),
                ..Head::default()
            };
            let asked = Asked {
                head,
                edits: None,
                finish: Finish::Done,
            };
            match send(&session, place, asked, &mut false).await {
                Ok(told) => return read_outcome(&told)?,
                Err(Failed::There(error)) if error.lost => {}
                Err(_) => return None,
            }
        }
        None
    }
}

fn transaction(text: &[u8]) -> Result<Transaction> {
    let record = take_transaction(&mut &text[..]).ok().flatten();
    record.ok_or_else(|| failure::nonsense("a transaction"))
}

/// Who failed.
enum Failed {
    Here(Error),
    There(ninep::Error),
}

impl From<ninep::Error> for Failed {
    fn from(error: ninep::Error) -> Self {
        Self::There(error)
    }
}

async fn send(
    session: &Session,
    place: &Place,
    asked: Asked,
    complete: &mut bool,
) -> Result<Vec<u8>, Failed> {
    let size = BLOCK.min(session.connection.unit() as usize);
    let (mut rest, printing) = if asked.edits.as_ref().is_none_or(Edits::is_at_hand) {
        let printed = asked.print(Vec::new()).map_err(Ended::reason)?;
        (cut(printed.into(), size), None)
    } else {
        let (sender, mut blocks) = mpsc::channel(2);
        let out = Blocks {
            sender,
            size,
            block: Vec::new(),
        };
        let printing = spawn_blocking(move || {
            let finished = asked.print(out)?.finish();
            finished.map_err(|_| Ended::Unwanted)
        });
        let blocks = stream::poll_fn(move |cx| blocks.poll_recv(cx));
        (blocks.boxed(), Some(printing))
    };
    // The first block goes with the opening: a small request is one round trip.
    let Some(block) = rest.next().await else {
        return Err(unfinished(printing).await);
    };
    let mut blocks = stream::iter([block]).chain(rest);
    let mut opened = session
        .open_in(place.dir, &place.name, place.make, place.file)
        .await?;
    let mut under_way = VecDeque::new();
    let mut at = 0;
    loop {
        let block = tokio::select! {
            biased;
            answer = first(&mut under_way) => {
                if let Err(error) = answer {
                    return Err(why(&mut opened, error).await.into());
                }
                continue;
            }
            block = blocks.next() => block,
        };
        let (block, last) = match block {
            Some(Block::More(block)) => (block, false),
            Some(Block::Last(block)) => (block, true),
            // Dropping the file says that there will be no last line.
            None => return Err(unfinished(printing).await),
        };
        let count = block.len() as u32;
        *complete = last;
        under_way.push_back((count, opened.file.write(at, block).await?));
        at += u64::from(count);
        if last {
            return result(opened, under_way).await;
        }
    }
}

/// Returns why the edits of a request have no end.
async fn unfinished(printing: Option<JoinHandle<Result<(), Ended>>>) -> Failed {
    let printing = printing.expect("what was printed before has its last block");
    match printing.await {
        Ok(ended) => ended.err().unwrap_or(Ended::Unwanted).reason(),
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => {
                let message = "the runtime is shutting down";
                Failed::Here(Error::new(Kind::Interrupted, message))
            }
        },
    }
}

/// Takes the answer to the first write; waits for ever where there is none.
async fn first(under_way: &mut VecDeque<(u32, Ticket)>) -> ninep::Result<()> {
    match under_way.front_mut() {
        None => std::future::pending().await,
        Some((count, ticket)) => {
            let answer = (&mut *ticket).await;
            let count = *count;
            under_way.pop_front();
            ninep::written(answer?, count)
        }
    }
}

/// Returns why a write failed: perhaps the file could not be opened.
async fn why(opened: &mut super::link::Made, error: ninep::Error) -> ninep::Error {
    match opened.ready().await {
        Err(first) => first,
        Ok(()) => error,
    }
}

/// Takes the answers that are still to come, and the result.
async fn result(
    mut opened: super::link::Made,
    mut under_way: VecDeque<(u32, Ticket)>,
) -> Result<Vec<u8>, Failed> {
    let count = opened.file.unit().min(64 << 10);
    let read = opened.file.read(0, count).await?;
    while !under_way.is_empty() {
        if let Err(error) = first(&mut under_way).await {
            read.ignore();
            return Err(why(&mut opened, error).await.into());
        }
    }
    let file: &File = &opened.file;
    let mut data = read.data(count).await?;
    let mut all = data.to_vec();
    while data.len() == count as usize && all.len() < WHOLE {
        let more = file.read(all.len() as u64, count).await?;
        data = more.data(count).await?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// Cuts a printed request into blocks.
fn cut(mut rest: Bytes, size: usize) -> BoxStream<'static, Block> {
    let mut blocks = Vec::new();
    while rest.len() > size {
        blocks.push(Block::More(rest.split_to(size)));
    }
    blocks.push(Block::Last(rest));
    stream::iter(blocks).boxed()
}

impl Asked {
    /// Prints the whole request, and returns what it was printed to.
    fn print<W: Write>(self, out: W) -> Result<W, Ended> {
        let mut printer = Printer { out, failed: None };
        let unwanted = |_| Ended::Unwanted;
        write_head(&mut printer.out, &self.head).map_err(unwanted)?;
        match self.edits.map(|edits| edits.give(&mut printer)) {
            Some(Err(Stop::Source(error))) => return Err(Ended::Failed(failure::source(error))),
            Some(result) if result.is_err() || printer.failed.is_some() => {
                return Err(printer.failed.take().unwrap_or(Ended::Unwanted));
            }
            _ => {}
        }
        write_finish(&mut printer.out, self.finish).map_err(unwanted)?;
        Ok(printer.out)
    }
}

/// Takes edits, and prints them.
struct Printer<W> {
    out: W,
    failed: Option<Ended>,
}

impl<W: Write> Sink for Printer<W> {
    fn edit(&mut self, edit: Edit<'_>) -> Result<(), Stop> {
        if self.failed.is_some() {
            return Err(Stop::Sink);
        }
        let failed = match write_edit(&mut self.out, edit) {
            Ok(()) => return Ok(()),
            Err(PrintError::Out(_)) => Ended::Unwanted,
            Err(PrintError::Content { path, error }) => {
                Ended::Failed(failure::content(&path, &error))
            }
            Err(PrintError::Length { path }) => {
                let message = format!("the content of {path} changed its length while it was read");
                Ended::Failed(Error::new(Kind::Invalid, message))
            }
        };
        self.failed = Some(failed);
        Err(Stop::Sink)
    }
}

/// Text gathered into blocks.
struct Blocks {
    sender: mpsc::Sender<Block>,
    size: usize,
    block: Vec<u8>,
}

impl Blocks {
    fn send(&self, block: Block) -> io::Result<()> {
        let sent = self.sender.blocking_send(block);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        self.send(Block::Last(block.into()))
    }
}

impl Write for Blocks {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.block.len() >= self.size {
            // There is always something left for the last block.
            let block = std::mem::take(&mut self.block);
            self.send(Block::More(block.into()))?;
        }
        let count = data.len().min(self.size - self.block.len());
        self.block.extend_from_slice(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
