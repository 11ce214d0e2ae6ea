//! How SQLite finds what the catalogue's statements ask for: what grows is never read as a whole by what is asked often.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::schema::MIGRATIONS;

/// What reads whole tables, by file and function, and why that may be.
const WHOLE: [(&str, &str, &str); 17] = [
    ("accounts.rs", "uids", "at the start"),
    ("accounts.rs", "listed", "at the start"),
    ("accounts.rs", "forget_listed", "at the start"),
    ("attachments.rs", "all", "at the start"),
    ("instances.rs", "delete_unmade", "at the start"),
    (
        "instances.rs",
        "watched",
        "each three minutes, by none that waits",
    ),
    ("services.rs", "all", "at the start"),
    ("services.rs", "hold_all", "after a restore"),
    ("bin.rs", "begin_anew", "after a restore"),
    ("volumes.rs", "to_compare", "at the start"),
    ("volumes.rs", "forget_identities", "after a restore"),
    ("volumes.rs", "attached", "each minute, by none that waits"),
    ("keys.rs", "pending_deletion", "each minute, by none that waits"),
    ("keys.rs", "to_rewrap", "each minute, by none that waits"),
    ("keys.rs", "all_material", "all is put under another root key"),
    ("meta.rs", "accounts", "each minute, by none that waits"),
    (
        "audit_records.rs",
        "newest",
        "backwards, and only the last record",
    ),
];

/// Tables of one row, of what is under way, of what is being computed, of what is asked for, of what is to be removed at once, and
/// SQLite's own; and what a subquery gives, which is looked at by itself.
const SMALL: [&str; 13] = [
    "audit_heads",
    "meta",
    "clock",
    "key_changes",
    "_sqlx_migrations",
    "pragma_table_info",
    "intents",
    "CONSTANT",
    "chain",
    "json_each",
    "wanted",
    "released",
    "(subquery-1)",
];

struct Statement {
    file: String,
    function: String,
    text: String,
}

#[tokio::test]
async fn no_table_that_grows_is_read_as_a_whole() {
    let mut db = catalogue().await;
    let statements = statements();
    assert!(statements.len() > 150, "{} are found", statements.len());
    let mut unused: Vec<_> = WHOLE.iter().collect();
    let mut scans = Vec::new();
    for statement in statements {
        let here = |(file, function, _): &(&str, &str, &str)| {
            (*file, *function) == (statement.file.as_str(), statement.function.as_str())
        };
        let scanned = scanned(&mut db, &statement.text).await;
        if scanned.is_empty() {
            continue;
        }
        if WHOLE.iter().any(here) {
            unused.retain(|entry| !here(entry));
        } else {
            scans.push(format!("{} {}: {scanned:?}", statement.file, statement.function));
        }
    }
    assert_eq!(scans, Vec::<String>::new());
    assert!(unused.is_empty(), "these read no table as a whole: {unused:?}");
}

/// So that none is bound to another's place when a statement changes.
#[test]
fn parameters_are_numbered_from_one() {
    let statements = statements();
    assert!(statements.len() > 150, "{} are found", statements.len());
    for Statement { file, function, text } in statements {
        let numbers: BTreeSet<usize> = text
            .split('?')
            .skip(1)
            .map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                rest[..end].parse().unwrap_or(0)
            })
            .collect();
        let expected: BTreeSet<usize> = (1..=numbers.len()).collect();
        assert_eq!(numbers, expected, "{file} {function}");
    }
}

/// When a row goes that others may refer to, SQLite looks for these.
#[tokio::test]
async fn what_refers_to_a_row_is_found_without_reading_a_table() {
    let mut db = catalogue().await;
    let references: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT tables.name, \"from\", keys.\"table\" FROM sqlite_schema AS tables,
             pragma_foreign_key_list(tables.name) AS keys
         WHERE tables.type = 'table' AND keys.seq = 0",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    assert!(references.len() > 30);
    for (child, column, parent) in references {
        // Accounts and users stay, and open intents are few.
        if ["accounts", "principals"].contains(&parent.as_str()) || child == "intents" {
            continue;
        }
        let lookup = format!("SELECT 1 FROM {child} WHERE {column} = ?1");
        let scanned = scanned(&mut db, &lookup).await;
        assert!(scanned.is_empty(), "{child}.{column} has no index");
    }
}

async fn catalogue() -> SqliteConnection {
    let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    MIGRATIONS.run_direct(None, &mut db, false).await.unwrap();
    db
}

/// Tables that grow and that a statement reads as a whole.
async fn scanned(db: &mut SqliteConnection, statement: &str) -> Vec<String> {
    let plan: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
            .fetch_all(db)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    let steps = plan.iter().filter_map(|(.., step)| step.strip_prefix("SCAN "));
    steps
        .filter(|step| !SMALL.iter().any(|table| step.split(' ').next() == Some(table)))
        .map(str::to_owned)
        .collect()
}

/// All statements of the catalogue's files, of which each is one literal, or one with what a macro puts before it.
fn statements() -> Vec<Statement> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/catalogue");
    let files = std::fs::read_dir(sources)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        // The last two ask catalogues of other versions, and backups.
        .filter(|path| {
            ![
                "tests.rs",
                "plan_tests.rs",
                "behind.rs",
                "kept.rs",
                "backup_file.rs",
            ]
            .iter()
            .any(|name| path.ends_with(name))
        })
        .flat_map(|path| statements_of(&path))
        // Of SQLite's own tables.
        .filter(|statement| !statement.text.contains("sqlite_schema"))
        .collect()
}

fn statements_of(path: &Path) -> Vec<Statement> {
    let source = std::fs::read_to_string(path).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap();
    let words = words(source);
    let mut before: HashMap<&str, &str> = HashMap::new();
    let mut function = "";
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let previous = |back: usize| index.checked_sub(back).map_or("", |index| words[index]);
        if previous(1) == "fn" {
            function = word;
        }
        let Some(literal) = word.strip_prefix('"') else {
            continue;
        };
        if let Some(name) = words[..index].iter().rposition(|word| *word == "macro_rules")
            && !words[name..index].iter().any(|word| word.starts_with('"'))
        {
            before.insert(words[name + 2], literal);
        } else if let (Some(start), "!") = (before.get(previous(3)), previous(2)) {
            found.push((function, format!("{start}{literal}")));
        } else if ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"]
            .iter()
            .any(|verb| literal.starts_with(verb))
        {
            found.push((function, literal.to_owned()));
        }
    }
    let file = path.file_name().unwrap().to_str().unwrap();
    found
        .into_iter()
        .map(|(function, text)| Statement {
            file: file.to_owned(),
            function: function.to_owned(),
            text,
        })
        .collect()
}

/// Names, literals (with the quote before them) and single other characters, without comments.
fn words(mut rest: &str) -> Vec<&str> {
    let mut words = Vec::new();
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => 1 + rest[1..].find('"').unwrap() + 1,
            _ if is_name(first) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (word, after) = rest.split_at(length);
        if first == '"' {
            words.push(&word[..length - 1]);
        } else if !word.starts_with("//") && !first.is_whitespace() {
            words.push(word);
        }
        rest = after;
    }
    words
}
