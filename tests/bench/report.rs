//! What was measured, and the table of it.

use std::process::ExitCode;
use std::time::Duration;

/// Measurements of one thing, in seconds.
pub struct Samples(Vec<f64>);

impl Samples {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    /// Returns the time that `part` of them do not exceed, in seconds.
    pub fn quantile(&self, part: f64) -> f64 {
        assert!(!self.0.is_empty(), "nothing was measured");
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * part).round() as usize]
    }

    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Returns how much longer each took than its counterpart, measured by turns:
    /// what a disk's mood adds to both is in neither.
    pub fn over(&self, others: &Self) -> Self {
        let pairs = self.0.iter().zip(&others.0);
        Self(pairs.map(|(one, other)| one - other).collect())
    }
}

/// Does two things by turns, each so often; the first of a round changes.
pub fn duel(
    rounds: usize,
    mut dk: impl FnMut() -> Duration,
    mut peer: impl FnMut() -> Duration,
) -> (Samples, Samples) {
    let (mut ours, mut theirs) = (Samples::new(), Samples::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            ours.add(dk());
            theirs.add(peer());
        } else {
            theirs.add(peer());
            ours.add(dk());
        }
    }
    (ours, theirs)
}

/// What a row must reach.
#[derive(Clone, Copy)]
pub enum Need {
    /// The ratio, dk by peer.
    AtLeast(f64),
    AtMost(f64),
    /// The figure of dk itself.
    Below(f64),
    /// For comparison only.
    Nothing,
}

/// The unit of a row's figures.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Things done a second.
    Rate,
    Milliseconds,
    /// Of things.
    Count,
    Mebibytes,
    Kibibytes,
}

impl Unit {
    fn show(self, figure: f64) -> String {
        let unit = match self {
            Self::Rate => "/s",
            Self::Milliseconds => " ms",
            Self::Count => "",
            Self::Mebibytes => " MiB",
            Self::Kibibytes => " KiB",
        };
        let digits = match figure {
            ..10.0 => 3,
            10.0..100.0 => 1,
            _ => 0,
        };
        format!("{figure:.digits$}{unit}")
    }
}

/// Rows, printed as they come.
pub struct Report {
    json: bool,
    missed: Vec<String>,
    begun: bool,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            missed: Vec::new(),
            begun: false,
        }
    }

    /// Prints a row: a figure of dk, and that of a peer.
    pub fn row(
        &mut self,
        name: &str,
        unit: Unit,
        dk: f64,
        peer: Option<(&str, f64)>,
        need: Need,
    ) -> &mut Self {
        let ratio = peer.map(|(_, peer)| dk / peer);
        let (ok, wanted) = match need {
            Need::AtLeast(least) => (ratio.is_some_and(|it| it >= least), format!(">= {least} x")),
            Need::AtMost(most) => (ratio.is_some_and(|it| it <= most), format!("<= {most} x")),
            Need::Below(most) => (dk <= most, format!("<= {}", unit.show(most))),
            Need::Nothing => (true, "-".into()),
        };
        if !ok {
            self.missed.push(name.to_owned());
        }
        if self.json {
            let line = serde_json::json!({
                "name": name,
                "dk": unit.show(dk),
                "peer": peer.map(|(peer, figure)| format!("{peer}: {}", unit.show(figure))),
                "ratio": ratio.map(|it| (it * 1000.0).round() / 1000.0),
                "need": wanted,
                "ok": ok,
            });
            println!("{line}");
            return self;
        }
        if !std::mem::replace(&mut self.begun, true) {
            println!(
                "{:<34} {:>11}  {:>11}  {:>8}  {:>10}      peer",
                "row", "dk", "peer", "ratio", "need"
            );
        }
        println!(
            "{name:<34} {:>11}  {:>11}  {:>8}  {wanted:>10}  {}  {}",
            unit.show(dk),
            peer.map_or_else(|| "-".into(), |(_, figure)| unit.show(figure)),
            ratio.map_or_else(|| "-".into(), |it| format!("{it:.2} x")),
            if ok { "ok" } else { "NO" },
            peer.map_or("", |(peer, _)| peer),
        );
        self
    }

    /// Prints a row of two durations, in milliseconds.
    pub fn times(
        &mut self,
        name: &str,
        dk: f64,
        peer: Option<(&str, f64)>,
        need: Need,
    ) -> &mut Self {
        let peer = peer.map(|(peer, time)| (peer, time * 1e3));
        self.row(name, Unit::Milliseconds, dk * 1e3, peer, need)
    }

    /// Says why something was not measured.
    pub fn skip(&self, name: &str, why: &str) {
        eprintln!("{name}: skipped: {why}");
    }

    pub fn finish(self) -> ExitCode {
        if self.missed.is_empty() {
            return ExitCode::SUCCESS;
        }
        eprintln!("missed: {}", self.missed.join(", "));
        ExitCode::FAILURE
    }
}
