//! The time of day, as the catalogue and the API write it.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// Of a millisecond.
const NANOS: i128 = 1_000_000;
/// 9999-12-31T23:59:59.999Z, in milliseconds since 1970.
const LAST: i64 = 253_402_300_799_999;

/// Now, as RFC 3339 in UTC with three digits of milliseconds: times of one width sort as text.
pub(crate) fn now() -> String {
    text(OffsetDateTime::now_utc())
}

/// The time so many hours from now, as [`now`] gives it.
pub(crate) fn in_hours(hours: i64) -> String {
    text(OffsetDateTime::now_utc() + Duration::hours(hours))
}

/// Now, in milliseconds since 1970.
pub(crate) fn wall() -> i64 {
    millis(OffsetDateTime::now_utc())
}

/// A time in milliseconds since 1970, as [`now`] gives it; the nearest one from 1970 to 9999.
pub(crate) fn at(milliseconds: i64) -> String {
    let milliseconds = i128::from(milliseconds.clamp(0, LAST));
    let time = OffsetDateTime::from_unix_timestamp_nanos(milliseconds * NANOS);
    text(time.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// The milliseconds since 1970 of a time from [`now`].
pub(crate) fn parse(time: &str) -> Option<i64> {
    OffsetDateTime::parse(time, &Rfc3339).ok().map(millis)
}

fn millis(time: OffsetDateTime) -> i64 {
    // Years of four digits fit.
    i64::try_from(time.unix_timestamp_nanos() / NANOS).unwrap_or_default()
}

fn text(time: OffsetDateTime) -> String {
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, millisecond) = time.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// The month of a time from [`now`], such as `2026-11`: the period of metering.
pub(crate) fn month(time: &str) -> &str {
    time.get(..7).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_text() {
        let at = |milliseconds: i64| {
            let time =
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).unwrap();
            (text(time), time)
        };
        assert_eq!(at(0).0, "1970-01-01T00:00:00.000Z");
        let moments = [
            999,
            1000,
            1010,
            1100,
            61_001,
            1_795_316_399_050,
            1_795_316_400_000,
        ]
        .map(at);
        assert!(moments.is_sorted_by(|one, next| one.0 < next.0), "{moments:?}");
        for (text, time) in moments {
            assert_eq!(OffsetDateTime::parse(&text, &Rfc3339).unwrap(), time);
        }
    }

    #[test]
    fn a_time_is_the_same_as_text_and_as_a_number() {
        for milliseconds in [0, 1, 1_795_316_399_050, 4_102_444_800_000] {
            assert_eq!(parse(&at(milliseconds)), Some(milliseconds));
        }
        assert_eq!(at(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(at(i64::MIN), "1970-01-01T00:00:00.000Z");
        assert_eq!(parse("tomorrow"), None);
    }

    #[test]
    fn a_time_is_utc_and_names_its_month() {
        let text = now();
        assert!(OffsetDateTime::parse(&text, &Rfc3339).is_ok());
        assert!(text.ends_with('Z'));
        assert_eq!(month("2026-11-22T01:02:03.5Z"), "2026-11");
    }
}
