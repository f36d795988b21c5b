//! Three states together: what waiting for others comes to, and in which words.

use crate::ci::layout::{Outcome, State};
use crate::forge::{Context, Status, StatusState};

/// Names that a text lists; more are counted.
const LISTED: usize = 10;

/// Returns what waiting for all of these comes to: nothing once all have
/// succeeded.
pub fn wait_for_all<'a>(needs: impl IntoIterator<Item = (&'a str, State)>) -> Option<Outcome> {
    let (mut failed, mut waiting) = (Vec::new(), Vec::new());
    for (name, state) in needs {
        match state {
            State::Failure => failed.push(name),
            State::Pending => waiting.push(name),
            State::Success => (),
        }
    }
    match (failed.is_empty(), waiting.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Outcome::pending(format!("Waiting for {}", names(&waiting)))),
        (false, true) => Some(Outcome::failure(format!("{} failed", names(&failed)))),
        (false, false) => Some(Outcome::pending(format!(
            "{} failed (still waiting for {})",
            names(&failed),
            names(&waiting)
        ))),
    }
}

fn names(names: &[&str]) -> String {
    if names.len() > LISTED {
        format!("{} tasks", names.len())
    } else {
        names.join(", ")
    }
}

/// Returns what waiting for another CI's status comes to: its URL (empty where
/// it has none) once it is a success.
pub fn after_status(context: &Context, status: Option<&Status>) -> Result<String, Outcome> {
    let context = String::from_utf8_lossy(context.as_bytes());
    let Some(status) = status else {
        let text = format!("Waiting for {context} status to appear");
        return Err(Outcome::pending(text));
    };
    let described = |text: String| match &status.description {
        Some(description) => format!("{text} ({description})"),
        None => text,
    };
    match status.state {
        StatusState::Success => Ok(status.target_url.clone().unwrap_or_default()),
        StatusState::Pending => Err(Outcome::pending(described(format!(
            "Waiting for {context} to complete"
        )))),
        StatusState::Failure => Err(Outcome::failure(described(format!("{context} failed")))),
        StatusState::Error => Err(Outcome::failure(described(format!("{context} errored")))),
    }
}

/// Returns which of two results one commit shows where two targets have it (a
/// branch and its pull request): the worse; of two successes the one that ran.
pub fn worse<'a>(a: &'a Outcome, b: &'a Outcome) -> &'a Outcome {
    let rank = |outcome: &Outcome| match outcome.state {
        State::Failure => 3,
        State::Pending => 2,
        State::Success if outcome.descr.starts_with(SKIPPED) => 0,
        State::Success => 1,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// What the text of a step that does not apply begins with.
pub const SKIPPED: &str = "skipped: ";

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Failure, Pending, Success};

    #[test]
    fn waiting_for_several() {
        let all = |needs: &[(&'static str, State)]| wait_for_all(needs.iter().copied());
        assert_eq!(all(&[]), None);
        assert_eq!(all(&[("A", Success)]), None);
        let texts = [
            (vec![("A", Failure), ("B", Failure)], "A, B failed", Failure),
            (
                vec![("A", Pending), ("B", Pending)],
                "Waiting for A, B",
                Pending,
            ),
            (
                vec![("B", Pending), ("A", Failure), ("C", Success)],
                "A failed (still waiting for B)",
                Pending,
            ),
            (vec![("A", Failure); 11], "11 tasks failed", Failure),
        ];
        for (needs, text, state) in texts {
            assert_eq!(all(&needs), Some(Outcome::new(state, text)));
        }
    }

    #[test]
    fn another_ci() {
        let context = crate::forge::context("ci/circleci").expect("legal");
        let with = |state, text| Status::new(state, text, Some("http://x"));
        let told = |status: &Status| after_status(&context, Some(status));
        assert_eq!(
            after_status(&context, None),
            Err(Outcome::pending("Waiting for ci/circleci status to appear"))
        );
        for (state, text, outcome) in [
            (
                StatusState::Pending,
                None,
                Outcome::pending("Waiting for ci/circleci to complete"),
            ),
            (
                StatusState::Pending,
                Some("queued"),
                Outcome::pending("Waiting for ci/circleci to complete (queued)"),
            ),
            (
                StatusState::Failure,
                Some("bad"),
                Outcome::failure("ci/circleci failed (bad)"),
            ),
            (
                StatusState::Error,
                None,
                Outcome::failure("ci/circleci errored"),
            ),
        ] {
            assert_eq!(told(&with(state, text)), Err(outcome));
        }
        assert_eq!(
            told(&with(StatusState::Success, None)),
            Ok("http://x".into())
        );
    }

    #[test]
    fn the_worse_of_two() {
        let (skipped, ran) = (Outcome::success("skipped: x"), Outcome::success("ok"));
        let (waits, failed) = (Outcome::pending("w"), Outcome::failure("f"));
        assert_eq!(worse(&skipped, &ran), &ran);
        assert_eq!(worse(&ran, &skipped), &ran);
        assert_eq!(worse(&ran, &waits), &waits);
        assert_eq!(worse(&failed, &waits), &failed);
    }
}
