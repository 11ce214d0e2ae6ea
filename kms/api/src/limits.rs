//! Limits that callers of the API meet.

/// Rows of a list that asks for no number.
pub const PAGE_DEFAULT: u32 = 100;
/// Most rows of a list that a caller can ask for at once.
pub const PAGE_MOST: u32 = 1000;
/// Longest wait before a key is destroyed, in days, unless `serve` is told otherwise.
pub const DELETION_DAYS_MOST: u16 = 30;
/// Longest wait before a key is destroyed that `serve` can be told, in days.
pub const DELETION_DAYS_EVER: u16 = 1096;
/// Longest time that a deleted disk can be kept in the bin, in days.
pub const RETENTION_DAYS_MOST: u16 = 365;
/// Longest token of a creating call, in characters.
pub const TOKEN_CHARACTERS: usize = 64;
