//! The catalogue, opened behind the daemon's back: to look, and to damage it as an attacker would.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, SqliteConnection};

/// A connection to the catalogue of a state directory.
#[derive(Debug)]
pub struct Catalogue {
    runtime: tokio::runtime::Runtime,
    connection: SqliteConnection,
}

impl Catalogue {
    /// Opens the catalogue of the state directory.
    ///
    /// # Panics
    /// If there is none.
    pub fn open(state: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let options = SqliteConnectOptions::new().filename(state.join("catalogue.db"));
        let connection = runtime.block_on(options.connect()).expect("the catalogue opens");
        Catalogue { runtime, connection }
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// SQLite's sentence.
    pub fn try_execute(&mut self, sql: &str) -> Result<(), String> {
        let statement = sqlx::raw_sql(AssertSqlSafe(sql));
        let executed = self.runtime.block_on(self.connection.execute(statement));
        executed.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Runs one statement.
    ///
    /// # Panics
    /// If it fails.
    pub fn execute(&mut self, sql: &str) {
        self.try_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The one row that a query gives.
    ///
    /// # Panics
    /// If it gives none.
    pub fn row(&mut self, sql: &str) -> SqliteRow {
        let query = sqlx::query(AssertSqlSafe(sql));
        let row = self.runtime.block_on(query.fetch_one(&mut self.connection));
        row.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The rows that a query gives.
    ///
    /// # Panics
    /// If it fails.
    pub fn rows(&mut self, sql: &str) -> Vec<SqliteRow> {
        let query = sqlx::query(AssertSqlSafe(sql));
        let rows = self.runtime.block_on(query.fetch_all(&mut self.connection));
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}
