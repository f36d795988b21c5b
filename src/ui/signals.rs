//! Signals that end a run, while it talks to somebody who may never answer.
//!
//! A signal normally drops the command's future. A thread that is blocked in a
//! write to a full pipe, or in a question, cannot be dropped: while one is,
//! the signal takes effect at once, as if dk did not listen for it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The next signal ends the process where it stands.
static AT_ONCE: AtomicBool = AtomicBool::new(false);
/// The signal that came; 0: none.
static CAME: AtomicUsize = AtomicUsize::new(0);
/// Threads that are talking.
static TALKING: Mutex<usize> = Mutex::new(0);

/// Begins to listen for a signal. Once it came, a second one ends the process.
pub fn listen(signal: i32) -> io::Result<()> {
    // Called in this order when the signal comes.
    signal_hook::flag::register_conditional_default(signal, &AT_ONCE)?;
    signal_hook::flag::register(signal, &AT_ONCE)?;
    signal_hook::flag::register_usize(signal, &CAME, usize::try_from(signal).unwrap_or(0))?;
    Ok(())
}

/// Returns the signal that came.
pub fn came() -> Option<i32> {
    i32::try_from(CAME.load(Ordering::SeqCst))
        .ok()
        .filter(|signal| *signal != 0)
}

/// Lets the signal that came pass.
pub fn forget() {
    let talking = talking();
    CAME.store(0, Ordering::SeqCst);
    AT_ONCE.store(*talking > 0, Ordering::SeqCst);
}

/// While it lives, a signal takes effect at once.
pub(super) struct Talk(());

/// Begins to talk; fails if a signal came.
pub(super) fn talk() -> io::Result<Talk> {
    let mut talking = talking();
    *talking += 1;
    AT_ONCE.store(true, Ordering::SeqCst);
    drop(talking);
    let talk = Talk(());
    match came() {
        Some(_) => Err(io::Error::other("a signal came")),
        None => Ok(talk),
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let mut talking = talking();
        *talking -= 1;
        if *talking == 0 {
            AT_ONCE.store(false, Ordering::SeqCst);
            // One that came in between must not be taken for none.
            if came().is_some() {
                AT_ONCE.store(true, Ordering::SeqCst);
            }
        }
    }
}

fn talking() -> MutexGuard<'static, usize> {
    TALKING.lock().unwrap_or_else(PoisonError::into_inner)
}
