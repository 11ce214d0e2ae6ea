//! Lists, a page at a time.

/// A page of a list: the rows after an id, in the order of ids.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Last id of the page before; empty for the first page.
    pub(crate) after: String,
    /// Most rows.
    pub(crate) limit: u32,
}

impl Page {
    /// Rows to ask the catalogue for: one more than wanted tells whether more follow.
    pub(super) fn probe(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Cuts the rows to the page.
    pub(super) fn cut<T>(&self, mut rows: Vec<T>, id: impl Fn(&T) -> &str) -> Listed<T> {
        let limit = self.limit as usize;
        if rows.len() <= limit {
            return (rows, None);
        }
        rows.truncate(limit);
        let next = rows.last().map(|row| id(row).to_owned());
        (rows, next)
    }
}

/// A page's rows, and the id to go on after, if more follow.
pub(super) type Listed<T> = (Vec<T>, Option<String>);

/// Several ids as one parameter N, for `IN (SELECT value FROM json_each(?N))`: so a page of a list needs a statement for each kind
/// of what its rows have, not one for each row.
pub(super) fn several<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    ids.into_iter().collect::<serde_json::Value>().to_string()
}
