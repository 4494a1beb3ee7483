//! The terms of a WHERE clause, each with at most one value, which is bound.

use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::AsideKind;
use super::super::aside::table;
use super::StoreError;
use super::link::Param;
use super::readers::Readers;

/// Terms that all hold.
#[derive(Default)]
pub(super) struct Terms {
    sql: String,
    values: Vec<Box<dyn ToSql + Send + Sync>>,
}

impl Terms {
    /// Adds a term that ends before its value, if there is one.
    pub(super) fn with<T: ToSql + Send + Sync + 'static>(self, term: &str, value: Option<T>) -> Self {
        self.with_closing(term, value, "")
    }

    /// Adds a term with something behind its value, if there is one.
    pub(super) fn with_closing<T: ToSql + Send + Sync + 'static>(
        mut self,
        term: &str,
        value: Option<T>,
        closing: &str,
    ) -> Self {
        if let Some(value) = value {
            self.values.push(Box::new(value));
            let place = self.values.len();
            self.push(&format!("{term} ${place}{closing}"));
        }
        self
    }

    /// Adds a term without a value if it is asked for.
    pub(super) fn when(mut self, asked: bool, term: &str) -> Self {
        if asked {
            self.push(term);
        }
        self
    }

    fn push(&mut self, term: &str) {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(term);
    }

    /// Rows of a table that meet these terms, newest first.
    pub(super) async fn newest<T: DeserializeOwned>(
        &self,
        readers: &Readers,
        kind: AsideKind,
        limit: usize,
    ) -> Result<Vec<T>, StoreError> {
        let (terms, last, table) = (&self.sql, self.values.len() + 1, table(kind));
        let sql = format!("SELECT id, body FROM {table}{terms} ORDER BY id DESC LIMIT ${last}");
        let params: Vec<Param<'_>> = self.values.iter().map(|value| value.as_ref() as Param<'_>).collect();
        readers.many(kind, &sql, &params, limit).await
    }

    /// Rows of a query that meet these terms, whatever they hold.
    pub(super) async fn select(
        &self,
        readers: &Readers,
        query: &str,
        order: &str,
        count: i64,
    ) -> Result<Vec<Row>, StoreError> {
        let (terms, last) = (&self.sql, self.values.len() + 1);
        let sql = format!("{query}{terms} ORDER BY {order} LIMIT ${last}");
        let values = self.values.iter().map(|value| value.as_ref() as Param<'_>);
        let params: Vec<Param<'_>> = values.chain([&count as Param<'_>]).collect();
        readers.rows(&sql, &params).await
    }
}
