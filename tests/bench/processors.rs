//! Which processor something runs on.

/// Where the one who asks and those who answer run. Left to itself, the kernel
/// has both on one processor at times and on two at others, which is several
/// times slower: each is a row of its own, and peers are measured as dk is.
#[derive(Clone, Copy)]
pub enum Processors {
    One,
    Two,
}

impl Processors {
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "1cpu",
            Self::Two => "2cpu",
        }
    }

    /// Asks, on the first processor.
    pub fn ask<T>(self, action: impl FnOnce() -> T) -> T {
        on(0, action)
    }

    /// Starts what will answer.
    pub fn answer<T>(self, action: impl FnOnce() -> T) -> T {
        on(self.answering(), action)
    }

    fn answering(self) -> usize {
        match self {
            Self::One => 0,
            Self::Two => 1,
        }
    }

    /// Tells whether this machine has them.
    pub fn are_there(self) -> bool {
        is_there(0) && is_there(self.answering())
    }
}

/// Does something, and starts what it starts, on one processor.
#[cfg(target_os = "linux")]
fn on<T>(processor: usize, action: impl FnOnce() -> T) -> T {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let all = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set(processor);
    sched_setaffinity(None, &one).unwrap();
    let result = action();
    sched_setaffinity(None, &all).unwrap();
    result
}

#[cfg(target_os = "linux")]
fn is_there(processor: usize) -> bool {
    let allowed = rustix::thread::sched_getaffinity(None);
    allowed.is_ok_and(|allowed| allowed.is_set(processor))
}

#[cfg(not(target_os = "linux"))]
fn on<T>(_: usize, action: impl FnOnce() -> T) -> T {
    action()
}

#[cfg(not(target_os = "linux"))]
fn is_there(_: usize) -> bool {
    false
}
