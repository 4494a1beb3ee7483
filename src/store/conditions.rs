//! The terms of a WHERE clause, each with at most one value, which is bound: the same for both stores.

use std::fmt;

use leasehold_law::id::LeaseId;
use leasehold_law::time::{Span, Timestamp};

use super::{Aside, AsideFilter, LeaseFilter};

/// What marks the place of a bound value, before its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// SQLite's.
    Question,
    /// PostgreSQL's.
    Dollar,
}

/// A value to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Conditions that all hold.
#[derive(Debug)]
pub(super) struct Conditions {
    mark: Mark,
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    /// None yet: everything is meant.
    pub(super) const fn new(mark: Mark) -> Self {
        Self { mark, sql: String::new(), values: Vec::new() }
    }

    /// The leases that a filter means.
    pub(super) fn of_leases(mark: Mark, filter: &LeaseFilter) -> Self {
        // One term in two halves, since each takes one value.
        let (name, value) = filter.reference.clone().unzip();
        let person = filter.person.as_ref().map(ToString::to_string);
        Self::new(mark)
            .with("id =", filter.id.map(|id| id.to_string()))
            .with("agent =", filter.agent.as_ref().map(ToString::to_string))
            .with("task =", filter.task.map(|id| id.to_string()))
            .with("target =", filter.target.clone())
            .with("intent =", filter.intent.clone())
            .with_closing("task IN (SELECT id FROM tasks WHERE person =", person, ")")
            .with("task IN (SELECT task FROM task_refs WHERE name =", name)
            .with_closing("value =", value, ")")
            .when(filter.live, "due IS NOT NULL")
            .when(filter.stuck, "state = 'revoking' AND stuck")
            .with("state = 'revoking' AND due >", filter.tried_after.map(|at| at.0))
            .with("lane = 0 AND state = 'active' AND due <=", filter.expired.map(|at| at.0))
            .with("created_at >=", filter.since.map(|at| at.0))
            .with("id >=", filter.since.map(|at| oldest_id(at).to_string()))
            .with("id <", filter.before.map(|id| id.to_string()))
            .with("id >", filter.after.map(|id| id.to_string()))
    }

    /// What was set aside, as a filter means it. What is due further ahead than any wait is due too: it was reckoned by
    /// a clock that has been put back since.
    pub(super) fn of_asides(mark: Mark, filter: &AsideFilter) -> Self {
        let not_ahead = format!(" NOT BETWEEN 1 AND {}", Aside::LONGEST_WAIT.0);
        Self::new(mark)
            .when(filter.alive, "due IS NOT NULL")
            .with_closing("due -", filter.due.map(|at| at.0), &not_ahead)
            .with("target =", filter.target.clone())
            .with("task =", filter.task.map(|id| id.to_string()))
    }

    /// Adds a term that ends before its value, if there is one.
    pub(super) fn with<T: Into<Value>>(self, term: &str, value: Option<T>) -> Self {
        self.with_closing(term, value, "")
    }

    /// Adds a term with something behind its value, if there is one.
    pub(super) fn with_closing<T: Into<Value>>(
        mut self,
        term: &str,
        value: Option<T>,
        closing: &str,
    ) -> Self {
        if let Some(value) = value {
            self.values.push(value.into());
            let place = self.place(self.values.len());
            self.push(&format!("{term} {place}{closing}"));
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

    fn place(&self, number: usize) -> String {
        match self.mark {
            Mark::Question => format!("?{number}"),
            Mark::Dollar => format!("${number}"),
        }
    }

    /// The place of a value that is bound behind these.
    pub(super) fn next_place(&self) -> String {
        self.place(self.values.len().saturating_add(1))
    }

    /// The values, in the order of their places.
    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }
}

/// As a clause, with a space before it; nothing where there is no term.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sql)
    }
}

/// Ids sort by time, so that "since" ends the walk through the ids early; the minute allows for an id that was
/// made before its lease was.
fn oldest_id(since: Timestamp) -> LeaseId {
    LeaseId::derive(since - Span::from_mins(1), 0)
}

/// The query for what a column of live leases holds, each value once: one step through its index for each, however many
/// leases have it.
pub(super) fn each_live(column: &'static str) -> String {
    format!(
        "WITH RECURSIVE found (it) AS (SELECT min({column}) FROM leases WHERE due IS NOT NULL
        UNION ALL SELECT (SELECT min({column}) FROM leases WHERE due IS NOT NULL AND {column} > found.it)
            FROM found WHERE found.it IS NOT NULL)
        SELECT it FROM found WHERE it IS NOT NULL"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_numbered_and_what_nobody_asked_is_left_out() {
        let filter = LeaseFilter {
            target: Some("orders-db".to_owned()),
            reference: Some(("run".to_owned(), "8812".to_owned())),
            live: true,
            ..LeaseFilter::default()
        };
        let terms = Conditions::of_leases(Mark::Dollar, &filter);
        assert_eq!(
            terms.to_string(),
            " WHERE target = $1 AND task IN (SELECT task FROM task_refs WHERE name = $2 AND value = $3) \
             AND due IS NOT NULL"
        );
        assert_eq!(terms.next_place(), "$4");
        let values = ["orders-db", "run", "8812"].map(|text| Value::Text(text.to_owned()));
        assert_eq!(terms.values(), values);
        let terms = Conditions::of_asides(
            Mark::Question,
            &AsideFilter { due: Some(Timestamp(7)), ..AsideFilter::default() },
        );
        assert_eq!(
            (terms.to_string().as_str(), terms.values()),
            (" WHERE due - ?1 NOT BETWEEN 1 AND 60000", &[Value::Number(7)][..])
        );
        assert_eq!(Conditions::of_asides(Mark::Question, &AsideFilter::default()).to_string(), "");
    }
}
