//! Schema versions. A file in `migrations/` is frozen once it shipped; a change is the next file.

use rusqlite::{Connection, OptionalExtension as _};

use super::StoreError;

const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_loop.sql"),
    include_str!("migrations/0002_told_again.sql"),
];

pub(super) fn bring_up_to_date(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version (
            version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL) STRICT",
    )?;
    let found: i64 = transaction
        .query_row(
            "SELECT version FROM schema_version ORDER BY version DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()?
        .unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::Later { found, known });
    }
    for (version, sql) in (1i64..).zip(MIGRATIONS) {
        if version > found {
            transaction.execute_batch(sql)?;
            transaction.execute(
                "INSERT INTO schema_version VALUES (?1, datetime('now'))",
                [version],
            )?;
        }
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_applied_once_and_a_later_one_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        bring_up_to_date(&mut connection).unwrap();
        bring_up_to_date(&mut connection).unwrap();
        connection
            .execute("INSERT INTO schema_version VALUES (999, '')", [])
            .unwrap();
        assert!(matches!(
            bring_up_to_date(&mut connection),
            Err(StoreError::Later { found: 999, .. })
        ));
    }
}
