//! Long work of the server's, told line by line, and its remotes.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};

use crate::client::*;
use crate::model::Kind;
use crate::model::text::{TaskLine, percent_encode, read_task_line, write_task_arguments};
use crate::ninep::client::{self as ninep, flags};

use super::failure::{self, Context};
use super::link::{Core, Session};
use super::{TOGETHER, WHOLE};

/// Bytes of progress read at once.
const PIECE: u32 = 32 << 10;

pub(super) async fn fetch(
    core: &Core,
    remote: &str,
    refspecs: &[String],
    progress: &dyn Progress,
) -> Result<Vec<Fetched>> {
    let arguments = write_task_arguments(remote, refspecs)?;
    let what = Context::change(format!("{remote} was fetched from"), "dk branch list -v");
    let mut found = Vec::new();
    once(core, "fetch", arguments, &what, progress, &mut |line| {
        if let TaskLine::Fetched(fetched) = line {
            found.push(fetched);
        }
    })
    .await?;
    Ok(found)
}

pub(super) async fn push(
    core: &Core,
    remote: &str,
    refspecs: &[String],
    progress: &dyn Progress,
) -> Result<()> {
    let arguments = write_task_arguments(remote, refspecs)?;
    let what = Context::change(
        format!("{remote} was pushed to"),
        format!("git ls-remote {remote}"),
    );
    once(core, "push", arguments, &what, progress, &mut |_| ()).await
}

pub(super) async fn gc(core: &Core, dry_run: bool, progress: &dyn Progress) -> Result<Collected> {
    let arguments = if dry_run { "dry-run\n" } else { "\n" };
    let what = Context::change("garbage was collected".into(), "dk gc --dry-run");
    let mut found = Collected::default();
    once(core, "gc", arguments.into(), &what, progress, &mut |line| {
        if let TaskLine::Collected(collected) = line {
            found = collected;
        }
    })
    .await?;
    Ok(found)
}

pub(super) async fn fsck(core: &Core, progress: &dyn Progress) -> Result<Vec<Fault>> {
    let mut tries = 0;
    loop {
        let session = core.session().await?;
        let mut found = Vec::new();
        let mut take = |line| {
            if let TaskLine::Fault(fault) = line {
                found.push(fault);
            }
        };
        match run(&session, "fsck", "\n".into(), progress, &mut take).await {
            Ok(()) => return Ok(found),
            Err(error) if error.lost && tries < super::TRIES => tries += 1,
            Err(error) => return Err(core.error(&"maintenance/fsck".into(), error)),
        }
    }
}

/// Does work that must not be done twice.
async fn once(
    core: &Core,
    name: &str,
    arguments: String,
    what: &Context,
    progress: &dyn Progress,
    take: &mut (dyn FnMut(TaskLine) + Send),
) -> Result<()> {
    let session = core.session().await?;
    match run(&session, name, arguments, progress, take).await {
        Err(error) if error.lost => Err(core.unknown(what, &error)),
        result => result.map_err(|error| core.error(what, error)),
    }
}

/// Starts work and reads what it tells, to its end. Dropping the future lets go
/// of it.
async fn run(
    session: &Session,
    name: &str,
    arguments: String,
    progress: &dyn Progress,
    take: &mut (dyn FnMut(TaskLine) + Send),
) -> ninep::Result<()> {
    let odd = || ninep::Error::here(Kind::Io, "the server's answer is not that of a task");
    let mut file = session
        .open("maintenance", &[name.as_bytes()], flags::RDWR)
        .await?;
    let length = arguments.len() as u32;
    let written = file.write(0, arguments.into_bytes().into()).await?;
    if let Err(error) = file.ready().await {
        written.ignore();
        return Err(error);
    }
    written.written(length).await?;
    let (mut text, mut at, mut empty) = (BytesMut::new(), 0, 0);
    loop {
        let data = file.wait(at, PIECE).await?.data(PIECE).await?;
        at += data.len() as u64;
        empty = if data.is_empty() { empty + 1 } else { 0 };
        if empty == 3 {
            return Err(odd());
        }
        text.extend_from_slice(&data);
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let line = text.split_to(end);
            text.advance(1);
            match read_task_line(&line).map_err(|_| odd())? {
                TaskLine::Part { name, total, bytes } => progress.begin(&name, total, bytes),
                TaskLine::Advance(by) => progress.advance(by),
                TaskLine::Line(line) => progress.line(&line),
                TaskLine::Ok => return Ok(()),
                TaskLine::Error(failure) => {
                    return Err(ninep::Error {
                        lost: false,
                        whole: true,
                        failure: *failure,
                    });
                }
                result => take(result),
            }
        }
        if text.len() > WHOLE {
            return Err(odd());
        }
    }
}

pub(super) async fn remotes(core: &Arc<Core>) -> Result<Vec<RemoteInfo>> {
    core.ask("remotes".into(), |session| async move {
        let file = session.open_root(&[b"remotes"], flags::DIRECTORY).await?;
        let names = file.names().await?;
        let mut found = Vec::with_capacity(names.len());
        for names in names.chunks(TOGETHER) {
            let reading = names.iter().map(|name| url(&session, name));
            for remote in futures_util::future::join_all(reading).await {
                found.extend(remote?);
            }
        }
        Ok(found)
    })
    .await
}

/// Reads one remote; nothing where it has gone in the meantime.
async fn url(session: &Session, name: &[u8]) -> ninep::Result<Option<RemoteInfo>> {
    let read = async {
        let file = session.open("remotes", &[name, b"url"], 0).await?;
        file.whole(0, WHOLE).await
    };
    let url = match read.await {
        Err(error) if error.failure.kind == Kind::NotFound => return Ok(None),
        url => url?,
    };
    let name = crate::model::text::percent_decode(name).unwrap_or_else(|| name.to_vec());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some(RemoteInfo {
        name: text(&name),
        url: text(url.trim_ascii_end()),
    }))
}

pub(super) async fn add_remote(core: &Core, name: &str, url: &str) -> Result<()> {
    let what = Context::change(format!("remote {name} was added"), "dk remote list");
    let element = percent_encode(name.as_bytes(), b"");
    let session = core.session().await?;
    let add = async {
        let dir = session.dir("remotes")?;
        session
            .connection
            .mkdir(dir, &element)
            .await?
            .done()
            .await?;
        let how = flags::WRONLY | flags::TRUNC;
        let mut file = session.open("remotes", &[&element, b"url"], how).await?;
        let count = url.len() as u32;
        let written = file.write(0, url.as_bytes().to_vec().into()).await?;
        let ready = file.ready().await;
        let written = match ready {
            Ok(()) => written.written(count).await,
            Err(error) => {
                written.ignore();
                Err(error)
            }
        };
        if written.as_ref().is_err_and(|error| !error.lost) {
            // What is left of it is of no use; the failure that counts is the first.
            let _ = session.connection.rmdir(dir, &element).await;
        }
        written
    };
    match add.await {
        Err(error) if error.lost => Err(failure::unknown(&core.url, &what, &error)),
        result => result.map_err(|error| core.error(&what, error)),
    }
}
