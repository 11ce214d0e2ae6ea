//! Intervals as people write them: a whole number and a unit, `15m`, `6h`, `1d`.

/// Why a text is no interval.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an interval is a whole number of minutes, hours, days or weeks, such as 15m, 6h, 1d or 2w")]
pub(crate) struct NoInterval;

const UNITS: [(char, u64); 4] = [('w', 7 * 86400), ('d', 86400), ('h', 3600), ('m', 60)];

/// Seconds that `text` means. The daemon judges whether it is long enough.
pub(crate) fn parse(text: &str) -> Result<u64, NoInterval> {
    let unit = text.chars().last().ok_or(NoInterval)?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NoInterval)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NoInterval);
    }
    let number: u64 = number.parse().map_err(|_| NoInterval)?;
    number.checked_mul(*seconds).ok_or(NoInterval)
}

/// `seconds` for people, in the largest unit of which they are a whole number.
pub(crate) fn human(seconds: u64) -> String {
    let fitting = UNITS
        .iter()
        .find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit));
    match fitting {
        Some((name, unit)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_one_unit() {
        for (text, seconds) in [
            ("1m", 60),
            ("90m", 5400),
            ("6h", 21600),
            ("1d", 86400),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "6",
            "h",
            "6x",
            "-1h",
            "+1h",
            "1.5h",
            "1h30m",
            "6 h",
            "99999999999999999999d",
            "18446744073709551615w",
        ] {
            assert_eq!(parse(text), Err(NoInterval), "{text}");
        }
    }

    #[test]
    fn people_read_the_largest_unit() {
        for (seconds, text) in [
            (0, "0s"),
            (61, "61s"),
            (60, "1m"),
            (5400, "90m"),
            (21600, "6h"),
            (172_800, "2d"),
            (604_800, "1w"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }
}
