//! The process between the runner and the processes of one job.
//!
//! Whatever a command starts, however often it forks and whatever sessions it
//! opens, stays a descendant: the supervisor is where the orphans among them
//! go (a child subreaper, or process 1 of a namespace). What stays true:
//!
//! - when the socket to the runner ends, because the job is over, to be
//!   stopped, or because the runner was killed, all descendants end: TERM, and
//!   after the grace KILL. (That end is told by the kernel also for `kill -9`.
//!   A parent-death signal would come too early: it tells of the thread that
//!   forked, and threads come and go.)
//! - the supervisor ends when no descendant is left, never before.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::signal::unix::{SignalKind, signal};

use super::family;
use super::sandbox;
use super::wire::{Answer, Order, Setup};

/// How often to look whether processes have ended.
const LOOK: Duration = Duration::from_millis(10);

/// How long what is run at the end may take.
const FINALLY: Duration = Duration::from_secs(30);

/// Serves the runner at the other end of `control` until that ends.
pub async fn supervise(control: OwnedFd) -> io::Result<()> {
    let control = std::os::unix::net::UnixStream::from(control);
    control.set_nonblocking(true)?;
    let (orders, mut answers) = UnixStream::from_std(control)?.into_split();
    let mut orders = BufReader::new(orders).lines();
    let Some(setup) = orders.next_line().await? else {
        return Ok(());
    };
    let setup: Setup = serde_json::from_str(&setup).map_err(io::Error::from)?;
    // Before anything can end.
    let mut ended = signal(SignalKind::child())?;
    let mut told = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    let ready = family::adopt().map_err(|error| format!("cannot adopt orphans: {error}"));
    let ready = ready.and_then(|()| match setup.sandbox {
        true => sandbox::enter(),
        false => Ok(()),
    });
    if let Err(why) = ready {
        return say(&mut answers, &Answer::Refused(why)).await;
    }
    say(&mut answers, &Answer::Ready).await?;
    let mut running = None;
    let [terminate, interrupt, hangup] = &mut told;
    loop {
        tokio::select! {
            line = orders.next_line() => {
                let Ok(Some(line)) = line else {
                    break;
                };
                let order: Order = serde_json::from_str(&line).map_err(io::Error::from)?;
                match start(&setup, &order, false) {
                    Ok(child) => running = Some(child),
                    Err(why) => say(&mut answers, &Answer::NotStarted(why)).await?,
                }
            }
            _ = ended.recv() => {
                if let Some(status) = reap(running) {
                    running = None;
                    if say(&mut answers, &answer(status)).await.is_err() {
                        break;
                    }
                }
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => break,
        }
    }
    end(&setup).await;
    Ok(())
}

async fn say(answers: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::from)?;
    line.push(b'\n');
    answers.write_all(&line).await
}

/// Starts a command. stdout and stderr are the log, which this process has as
/// its own, unless nobody is to hear of it; nothing else is passed on.
fn start(setup: &Setup, order: &Order, silent: bool) -> Result<Pid, String> {
    let Some((program, args)) = order.run.split_first() else {
        return Err("there is nothing to run".into());
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(setup.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&setup.dir)
        .stdin(Stdio::null())
        .process_group(0);
    if silent {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    if let Some(user) = setup.user {
        // This drops the other groups, too.
        command.uid(user).gid(user);
    }
    let child = command.spawn().map_err(|error| {
        let program = crate::model::text::quote_always(program.as_encoded_bytes());
        format!("cannot run {program}: {error}")
    })?;
    // From here on it is waited for as any other orphan.
    Ok(Pid::from_raw(child.id().cast_signed()).expect("a child has a number"))
}

/// Waits for all that have ended; returns how `running` did, if it is one.
fn reap(running: Option<Pid>) -> Option<WaitStatus> {
    let mut found = None;
    // An error: there are no children.
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Some(pid) == running {
            found = Some(status);
        }
    }
    found
}

fn answer(status: WaitStatus) -> Answer {
    match status.terminating_signal() {
        Some(number) => Answer::Signalled(number),
        None => Answer::Exited(status.exit_status().unwrap_or(-1)),
    }
}

/// Ends all descendants.
async fn end(setup: &Setup) {
    let until = Instant::now() + setup.grace;
    family::signal(Signal::TERM);
    while family::lives() && Instant::now() < until {
        reap(None);
        tokio::time::sleep(LOOK).await;
    }
    // One that forks while it is looked for is found the next time.
    loop {
        reap(None);
        if !family::lives() {
            break;
        }
        family::signal(Signal::KILL);
        tokio::time::sleep(LOOK).await;
    }
    for words in &setup.finally {
        let order = Order {
            run: words.iter().map(Into::into).collect(),
        };
        if start(setup, &order, true).is_ok() {
            let until = Instant::now() + FINALLY;
            while family::lives() && Instant::now() < until {
                reap(None);
                tokio::time::sleep(LOOK).await;
            }
            family::signal(Signal::KILL);
            reap(None);
        }
    }
}
