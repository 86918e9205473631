//! The few kinds of column we use, so that a table reads as a list of names.

use sea_orm_migration::prelude::*;

/// Text that is always there.
pub fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).text().not_null().take()
}

/// Text that may be absent.
pub fn text_opt(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).text().take()
}

/// A 64-bit number (moments, bytes, ticks).
pub fn big(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).big_integer().not_null().take()
}

/// A 64-bit number with a default for rows that do not name it.
pub fn big_default(name: &'static str, value: i64) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).big_integer().not_null().default(value).take()
}

/// A 64-bit number that may be absent.
pub fn big_opt(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).big_integer().take()
}

/// A small number.
pub fn int(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).integer().not_null().default(0).take()
}

/// A small number that may be absent.
pub fn int_opt(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).integer().take()
}

/// Yes or no, no by default.
pub fn flag(name: &'static str) -> ColumnDef {
    ColumnDef::new(Alias::new(name)).boolean().not_null().default(false).take()
}

/// Builds a table from its name, its key and its columns.
pub fn table(
    name: &'static str,
    key: &[&'static str],
    columns: Vec<ColumnDef>,
) -> TableCreateStatement {
    let mut statement = Table::create().table(Alias::new(name)).to_owned();
    for column in columns {
        statement.col(column);
    }
    let mut primary = Index::create();
    for part in key {
        primary.col(Alias::new(*part));
    }
    statement.primary_key(&mut primary);
    statement
}

/// A plain or unique index over whole columns.
pub fn index(
    name: &str,
    on: &'static str,
    columns: &[&'static str],
    unique: bool,
) -> IndexCreateStatement {
    let mut statement = Index::create().name(name).table(Alias::new(on)).to_owned();
    for column in columns {
        statement.col(Alias::new(*column));
    }
    if unique {
        statement.unique();
    }
    statement
}

/// Drops tables, newest first.
pub async fn drop_tables(manager: &SchemaManager<'_>, names: &[&'static str]) -> Result<(), DbErr> {
    for name in names {
        manager.drop_table(Table::drop().table(Alias::new(*name)).to_owned()).await?;
    }
    Ok(())
}
