//! Sizes as people write them.
//!
//! A whole number of bytes, or of KiB, MiB, GiB or TiB (`K`, `M`, `G`, `T` are short for these): powers of 1024, since
//! disks are. `KB`, `MB`, … mean powers of 1000 to some and of 1024 to others, so they are refused, as fractions are.

/// Why a text is no size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    /// No digits where the number belongs.
    #[error("a size is a whole number and a unit, such as 1GiB, 512M or 4096")]
    NotANumber,
    /// `1.5GiB`.
    #[error("a size is a whole number; use a smaller unit, such as 1536MiB for 1.5GiB")]
    Fraction,
    /// `1GB`.
    #[error("{0} can mean powers of 1000 or of 1024; use {1}iB")]
    Ambiguous(String, char),
    /// `1X`.
    #[error("unknown unit {0}; use KiB, MiB, GiB or TiB, or K, M, G or T")]
    UnknownUnit(String),
    /// More than 2⁶⁴ − 1 bytes.
    #[error("the size is larger than any disk")]
    TooLarge,
}

/// Bytes that `text` means. The daemon judges whether a disk can have that size.
pub(crate) fn parse(text: &str) -> Result<u64, SizeError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if unit.starts_with(['.', ',']) && digits > 0 {
        return Err(SizeError::Fraction);
    }
    if digits == 0 {
        return Err(SizeError::NotANumber);
    }
    let factor = factor(unit)?;
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    number.checked_mul(factor).ok_or(SizeError::TooLarge)
}

fn factor(unit: &str) -> Result<u64, SizeError> {
    let lower = unit.to_ascii_lowercase();
    let shift = match lower.chars().next() {
        None => return Ok(1),
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        Some(_) => return Err(SizeError::UnknownUnit(unit.to_owned())),
    };
    match &lower[1..] {
        "" | "ib" => Ok(1 << shift),
        "b" => Err(SizeError::Ambiguous(
            unit.to_owned(),
            unit.to_ascii_uppercase().chars().next().unwrap_or('M'),
        )),
        _ => Err(SizeError::UnknownUnit(unit.to_owned())),
    }
}

/// `bytes` for people: in the largest unit of which there is one, with a digit after the point unless it is whole.
pub(crate) fn human(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        let one = 1u64 << shift;
        if bytes >= one {
            let whole = bytes >> shift;
            let rest = bytes & (one - 1);
            let tenths = ((rest >> (shift - 10)) * 10) >> 10;
            return match rest {
                0 => format!("{whole} {unit}"),
                _ => format!("{whole}.{tenths} {unit}"),
            };
        }
    }
    format!("{bytes} B")
}

/// The same, and the number of bytes.
pub(crate) fn exact(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", human(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("513", 513),
            ("1K", 1 << 10),
            ("1KiB", 1 << 10),
            ("10M", 10 << 20),
            ("512MiB", 512 << 20),
            ("1G", 1 << 30),
            ("1GiB", 1 << 30),
            ("1gib", 1 << 30),
            ("1t", 1 << 40),
            ("64TiB", 64 << 40),
            ("16777215T", 16_777_215 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn overflow_is_found() {
        for text in [
            "16777216T",
            "18446744073709551616",
            "18014398509481984K",
            "99999999999999999999G",
        ] {
            assert_eq!(parse(text), Err(SizeError::TooLarge), "{text}");
        }
    }

    #[test]
    fn decimal_units_and_fractions_are_refused_with_a_hint() {
        assert_eq!(parse("1GB"), Err(SizeError::Ambiguous("GB".to_owned(), 'G')));
        assert_eq!(parse("1kb"), Err(SizeError::Ambiguous("kb".to_owned(), 'K')));
        assert!(parse("1GB").unwrap_err().to_string().ends_with("use GiB"));
        for text in ["1.5GiB", "0.5T", "1,5G", "1."] {
            assert_eq!(parse(text), Err(SizeError::Fraction), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "G", "-1", "+1", " 1", "GiB1", ".5G", "٣G", "zero"] {
            assert_eq!(parse(text), Err(SizeError::NotANumber), "{text:?}");
        }
        for (text, unit) in [
            ("1X", "X"),
            ("1 G", " G"),
            ("1Gi", "Gi"),
            ("1GiBB", "GiBB"),
            ("1G1", "G1"),
            ("1é", "é"),
        ] {
            assert_eq!(
                parse(text),
                Err(SizeError::UnknownUnit(unit.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn people_read_units() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 10, "1 KiB"),
            (1536, "1.5 KiB"),
            (1 << 30, "1 GiB"),
            ((1 << 30) + 512, "1.0 GiB"),
            (64 << 40, "64 TiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }
}
