//! Spans of time and sizes as people write them: a whole number and a unit.

use std::time::Duration;

/// Parses a span of time: a whole number and s, m, h, d or w.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || "a number and one of s, m, h, d, w is needed, as in 12h".to_string();
    let letter = text.chars().next_back().ok_or_else(refuse)?;
    let unit: u64 = match letter {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(refuse()),
    };
    let digits = &text[..text.len() - letter.len_utf8()];
    let count: u64 = digits.parse().map_err(|_| refuse())?;
    count
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(|| "that is too long".into())
}

/// Parses a number of bytes: a whole number and B, KiB, MiB or GiB.
pub fn size(text: &str) -> Result<u64, String> {
    let refuse = || "a number and one of B, KiB, MiB, GiB is needed, as in 64MiB".to_string();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(refuse)?;
    let unit: u64 = match &text[end..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(refuse()),
    };
    let count: u64 = text[..end].parse().map_err(|_| refuse())?;
    count
        .checked_mul(unit)
        .ok_or_else(|| "that is too much".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2w"), Ok(Duration::from_secs(1_209_600)));
        for bad in ["", "5", "m", "-1s", "1.5h", "1y", "1 h", "5ü"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration("99999999999999999w").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(size("0B"), Ok(0));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        for bad in [
            "",
            "5",
            "MiB",
            "-1B",
            "1.5MiB",
            "1MB",
            "1 B",
            "99999999999GiB",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
