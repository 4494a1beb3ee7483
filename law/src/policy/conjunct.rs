//! The conditions of a policy, cut into top-level conjuncts that can be evaluated and told one by one.

use std::str::FromStr;

use cedar_policy::pst::{BinaryOp, Clause, Expr, UnaryOp};
use cedar_policy::{Entities, EvalResult, Expression, Request, eval_expression};

use super::fault::CedarError;
use super::words::Words;

/// One of the conditions that must all hold for a policy to apply.
#[derive(Debug)]
pub(super) struct Conjunct {
    expression: Expression,
    /// What the agent may be told of it.
    pub(super) words: Option<Words>,
}

impl Conjunct {
    /// Whether it holds, evaluated alone: an error, such as a label that is not there, counts as no.
    pub(super) fn holds(&self, request: &Request, entities: &Entities) -> bool {
        eval_expression(request, entities, &self.expression)
            .is_ok_and(|value| value == EvalResult::Bool(true))
    }
}

/// The conjuncts of all `when` and `unless` clauses, in the order in which they are written.
///
/// # Errors
/// Where Cedar does not read back what it printed, which would be its fault.
pub(super) fn split(clauses: &[Clause]) -> Result<Vec<Conjunct>, CedarError> {
    let mut parts = Vec::new();
    for clause in clauses {
        match clause {
            Clause::When(expr) => collect(expr, true, &mut parts),
            Clause::Unless(expr) => collect(expr, false, &mut parts),
        }
    }
    parts.into_iter().map(|(expr, holds)| conjunct(expr, holds)).collect()
}

/// `a && b` must hold: both must. `a || b` must not hold: neither must.
fn collect<'a>(expr: &'a Expr, holds: bool, parts: &mut Vec<(&'a Expr, bool)>) {
    match (expr, holds) {
        (Expr::BinaryOp { op: BinaryOp::And, left, right }, true)
        | (Expr::BinaryOp { op: BinaryOp::Or, left, right }, false) => {
            collect(left, holds, parts);
            collect(right, holds, parts);
        }
        (Expr::UnaryOp { op: UnaryOp::Not, expr }, _) => collect(expr, !holds, parts),
        (expr, _) => parts.push((expr, holds)),
    }
}

fn conjunct(expr: &Expr, holds: bool) -> Result<Conjunct, CedarError> {
    let text = if holds { expr.to_string() } else { format!("!({expr})") };
    Ok(Conjunct {
        expression: Expression::from_str(&text).map_err(CedarError::of)?,
        words: Words::of(expr, holds),
    })
}
