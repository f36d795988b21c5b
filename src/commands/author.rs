//! Who commits, and when: `--author` and `GIT_AUTHOR_DATE`.
//!
//! Dates are read as Git reads them (git-commit(1), DATE FORMATS): seconds
//! with a zone, ISO 8601, and RFC 2822. The environment's names are the
//! client's business.

use anyhow::Context as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::model::{Identity, Time};
use crate::ui::Usage;

/// Parses `Name <mail>`.
pub(super) fn identity(text: &str) -> Result<Identity, String> {
    let refuse = || "write it as 'Name <mail>'".to_string();
    let (name, rest) = text.split_once('<').ok_or_else(refuse)?;
    let (email, rest) = rest.split_once('>').ok_or_else(refuse)?;
    let odd = |c: char| c == '<' || c == '>' || c.is_control();
    if name.trim().is_empty()
        || !rest.trim().is_empty()
        || name.contains(odd)
        || email.contains(odd)
    {
        return Err(refuse());
    }
    Ok(Identity {
        name: name.trim().into(),
        email: email.trim().into(),
    })
}

/// Returns the moment a commit made now carries: `GIT_AUTHOR_DATE`, else now
/// in the local zone.
pub(super) fn time() -> anyhow::Result<Time> {
    match std::env::var("GIT_AUTHOR_DATE") {
        Ok(text) if !text.trim().is_empty() => date(text.trim(), &local()).ok_or_else(|| {
            Usage::new(format!("GIT_AUTHOR_DATE is not a date: {text}"))
                .hint("write it as '@1700000000 +0100', '2023-11-14T22:13:20+01:00' or 'Tue, 14 Nov 2023 22:13:20 +0100'")
                .into()
        }),
        Err(std::env::VarError::NotUnicode(_)) => Err(Usage::new("GIT_AUTHOR_DATE is not a date").into()),
        _ => now(),
    }
}

fn now() -> anyhow::Result<Time> {
    let now = Timestamp::now();
    let offset = local().to_offset(now).seconds();
    let seconds = now.as_second();
    Ok(Time {
        seconds,
        offset: i32::checked_div(offset, 60).context("the local time zone is unusable")?,
    })
}

/// Returns the local zone. Its own file is enough unless TZ says otherwise: to
/// learn the zone's name, a database of all zones would be listed.
fn local() -> TimeZone {
    let own = || {
        let zone = std::fs::read("/etc/localtime").ok()?;
        TimeZone::tzif("local", &zone).ok()
    };
    match std::env::var_os("TZ") {
        None => own().unwrap_or_else(TimeZone::system),
        Some(_) => TimeZone::system(),
    }
}

/// Parses one date; those without a zone are in `local`.
fn date(text: &str, local: &TimeZone) -> Option<Time> {
    if let Some(time) = raw(text) {
        return Some(time);
    }
    let at = |moment: Timestamp, offset: i32| Time {
        seconds: moment.as_second(),
        offset: offset / 60,
    };
    if let Ok(zoned) = jiff::fmt::rfc2822::parse(text) {
        return Some(at(zoned.timestamp(), zoned.offset().seconds()));
    }
    // `2023-11-14 22:13:20 +0100`: the zone may be a word of its own.
    let mut joined = text.to_string();
    if let Some(blank) = text.rfind(' ')
        && text[blank + 1..].starts_with(['+', '-'])
    {
        joined.remove(blank);
    }
    if let Ok(pieces) = jiff::fmt::temporal::DateTimeParser::new().parse_pieces(&joined) {
        let datetime = pieces.date().to_datetime(pieces.time()?);
        let offset = match pieces.to_numeric_offset() {
            Some(offset) => offset,
            None => local
                .to_ambiguous_timestamp(datetime)
                .compatible()
                .ok()
                .map(|moment| local.to_offset(moment))?,
        };
        let moment = offset.to_timestamp(datetime).ok()?;
        return Some(at(moment, offset.seconds()));
    }
    None
}

/// Parses `@seconds`, `@seconds zone` and `seconds zone`; seconds alone only
/// where no year could be meant.
fn raw(text: &str) -> Option<Time> {
    let (marked, rest) = match text.strip_prefix('@') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut words = rest.split_ascii_whitespace();
    let digits = words.next()?;
    let seconds: i64 = digits.parse().ok()?;
    let zone = words.next();
    if words.next().is_some() || (!marked && zone.is_none() && digits.len() < 9) {
        return None;
    }
    let offset = match zone {
        None => 0,
        Some(zone) => {
            let (sign, digits) = match zone.split_at_checked(1)? {
                ("+", digits) => (1, digits),
                ("-", digits) => (-1, digits),
                _ => return None,
            };
            if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let number: i32 = digits.parse().ok()?;
            sign * (number / 100 * 60 + number % 100)
        }
    };
    Some(Time { seconds, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_are_a_name_and_a_mail() {
        let who = identity(" A B <a@b> ").expect("legal");
        assert_eq!((who.name.as_str(), who.email.as_str()), ("A B", "a@b"));
        for bad in ["A B", "<a@b>", "A <a", "A <a> b", "A <a<b>", "A\n <b>"] {
            assert!(identity(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn dates_are_gits() {
        let local = TimeZone::fixed(jiff::tz::offset(2));
        let time = |seconds, offset| Some(Time { seconds, offset });
        for (text, want) in [
            ("@1700000000", time(1_700_000_000, 0)),
            ("@5 -0330", time(5, -210)),
            ("1700000000 +0130", time(1_700_000_000, 90)),
            ("1700000000", time(1_700_000_000, 0)),
            ("2023-11-14T22:13:20Z", time(1_700_000_000, 0)),
            ("2023-11-14T23:13:20+01:00", time(1_700_000_000, 60)),
            ("2023-11-14T23:13:20+0100", time(1_700_000_000, 60)),
            ("2023-11-14 23:13:20 +0100", time(1_700_000_000, 60)),
            ("2023-11-15T00:13:20", time(1_700_000_000, 120)),
            ("2023-11-15 00:13:20", time(1_700_000_000, 120)),
            ("Tue, 14 Nov 2023 23:13:20 +0100", time(1_700_000_000, 60)),
            ("", None),
            ("yesterday", None),
            ("@", None),
            ("@1 1", None),
            ("@99999999999999999999", None),
            ("2023-02-30T00:00:00Z", None),
        ] {
            assert_eq!(date(text, &local), want, "{text:?}");
        }
    }
}
