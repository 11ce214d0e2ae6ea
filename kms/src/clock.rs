//! The time of day, as the catalogue and the API write it.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, as RFC 3339 in UTC with whole milliseconds.
pub(crate) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let rounded = now.replace_millisecond(now.millisecond()).unwrap_or(now);
    // Formatting fails only for years beyond 9999.
    rounded.format(&Rfc3339).unwrap_or_default()
}

/// The month of a time from [`now`], such as `2026-11`: the period of metering.
pub(crate) fn month(time: &str) -> &str {
    time.get(..7).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_utc_and_names_its_month() {
        let text = now();
        assert!(OffsetDateTime::parse(&text, &Rfc3339).is_ok());
        assert!(text.ends_with('Z'));
        assert_eq!(month("2026-11-22T01:02:03.5Z"), "2026-11");
    }
}
