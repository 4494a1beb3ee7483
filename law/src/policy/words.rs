//! Conditions in plain words, for the agent that was refused: only those on its own inputs (EXPERIENCE.md,
//! "Refusals"); of any other it learns nothing.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "Cedar's enums are open, and what we do not know stays unsaid"
)]

use std::collections::BTreeSet;

use cedar_policy::pst::{BinaryOp, Expr, Literal, PatternElem, UnaryOp, Var};

use super::Question;
use crate::param::ParamValue;
use crate::time::Span;

/// What the agent reads of every other condition.
pub(super) const FURTHER: &str = "a further condition";

/// A condition on the agent's own inputs.
#[derive(Debug)]
pub(super) struct Words {
    text: String,
    inputs: BTreeSet<Input>,
}

/// Something that the agent brought along.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Input {
    Ttl,
    Param(String),
    Liveness,
    TaskAge,
    Groups,
}

impl Words {
    /// The words for `expr`, or for its opposite where it is not to hold; `None` where it looks at anything but
    /// the agent's inputs.
    pub(super) fn of(expr: &Expr, holds: bool) -> Option<Self> {
        let mut reader = Reader::default();
        let text = reader.condition(expr, holds)?;
        (!reader.inputs.is_empty()).then_some(Self { text, inputs: reader.inputs })
    }

    /// The condition and what was asked: `ttl > 15m; you asked for 1h`.
    pub(super) fn tell(&self, question: &Question<'_>) -> String {
        let named = self.inputs.len() > 1;
        let mut told = self.text.clone();
        for input in &self.inputs {
            if let Some(value) = input.value(question) {
                let name = if named { format!("{} ", input.name()) } else { String::new() };
                told.push_str(&format!("; {} {name}{value}", input.verb()));
            }
        }
        told
    }
}

impl Input {
    fn name(&self) -> String {
        match self {
            Self::Ttl => "ttl".to_owned(),
            Self::Param(name) => format!("param {name}"),
            Self::Liveness => "task liveness".to_owned(),
            Self::TaskAge => "task age".to_owned(),
            Self::Groups => "groups".to_owned(),
        }
    }

    const fn verb(&self) -> &'static str {
        match self {
            Self::Ttl | Self::Param(_) => "you asked for",
            Self::Liveness | Self::TaskAge | Self::Groups => "yours is",
        }
    }

    /// Groups are not listed again: the condition names the one that counts.
    fn value(&self, question: &Question<'_>) -> Option<String> {
        match self {
            Self::Ttl => Some(question.ttl.to_string()),
            Self::Param(name) => Some(match question.params.and_then(|params| params.get(name)) {
                Some(value) => show(value),
                None => "none".to_owned(),
            }),
            Self::Liveness => Some(question.liveness.to_owned()),
            Self::TaskAge => Some(question.task_age.to_string()),
            Self::Groups => None,
        }
    }
}

fn show(value: &ParamValue) -> String {
    match value {
        ParamValue::Bool(value) => value.to_string(),
        ParamValue::Int(value) => value.to_string(),
        ParamValue::String(value) => format!("{value:?}"),
        ParamValue::List(items) => format!("{items:?}"),
    }
}

/// Reads an expression; gives up (`None`) at the first part that is not the agent's.
#[derive(Default)]
struct Reader {
    inputs: BTreeSet<Input>,
}

impl Reader {
    fn condition(&mut self, expr: &Expr, holds: bool) -> Option<String> {
        match expr {
            Expr::UnaryOp { op: UnaryOp::Not, expr } => self.condition(expr, !holds),
            Expr::BinaryOp { op: op @ (BinaryOp::And | BinaryOp::Or), left, right } => {
                let word = if (*op == BinaryOp::And) == holds { "and" } else { "or" };
                Some(format!("{} {word} {}", self.part(left, holds)?, self.part(right, holds)?))
            }
            Expr::BinaryOp { op: BinaryOp::In, left, right } => self.group(left, right, holds),
            Expr::BinaryOp { op: BinaryOp::Contains, left, right } => {
                Some(format!("{} {} {}", self.term(right)?, says(holds, "in", "not in"), self.term(left)?))
            }
            Expr::BinaryOp { op, left, right } => {
                let sign = comparison(*op, holds)?;
                Some(format!("{} {sign} {}", self.term(left)?, self.term(right)?))
            }
            Expr::HasAttr { expr, attrs } if is_context_field(expr, "params") && attrs.len() == 1 => {
                let name = self.note(Input::Param(attrs.first().to_string()));
                Some(format!("{name} {}", says(holds, "is given", "is not given")))
            }
            Expr::Like { expr, pattern } => {
                let sign = says(holds, "like", "not like");
                Some(format!("{} {sign} {:?}", self.term(expr)?, pattern_text(pattern)))
            }
            Expr::GetAttr { .. } => Some(format!("{} == {holds}", self.term(expr)?)),
            _ => None,
        }
    }

    /// A condition inside another one.
    fn part(&mut self, expr: &Expr, holds: bool) -> Option<String> {
        let text = self.condition(expr, holds)?;
        let compound = matches!(expr, Expr::BinaryOp { op: BinaryOp::And | BinaryOp::Or, .. });
        Some(if compound { format!("({text})") } else { text })
    }

    fn group(&mut self, left: &Expr, right: &Expr, holds: bool) -> Option<String> {
        match (left, right) {
            (Expr::Var(Var::Principal), Expr::Literal(Literal::EntityUID(group)))
                if group.ty.to_string() == "AgentGroup" =>
            {
                self.note(Input::Groups);
                Some(format!("agent {} group {}", says(holds, "in", "not in"), group.eid))
            }
            _ => None,
        }
    }

    fn term(&mut self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Literal(Literal::Bool(value)) => Some(value.to_string()),
            Expr::Literal(Literal::Long(value)) => Some(value.to_string()),
            Expr::Literal(Literal::String(value)) => Some(format!("{:?}", value.as_str())),
            Expr::GetAttr { expr, attr } => self.input(expr, attr),
            Expr::UnaryOp { op, expr } => self.unary(*op, expr),
            Expr::BinaryOp { op, left, right } => {
                let sign = arithmetic(*op)?;
                Some(format!("{} {sign} {}", self.term(left)?, self.term(right)?))
            }
            Expr::Set(items) => {
                let items: Option<Vec<_>> = items.iter().map(|item| self.term(item)).collect();
                Some(format!("[{}]", items?.join(", ")))
            }
            _ => None,
        }
    }

    fn input(&mut self, owner: &Expr, attr: &str) -> Option<String> {
        let input = match attr {
            "ttl" if matches!(owner, Expr::Var(Var::Context)) => Input::Ttl,
            "liveness" if is_context_field(owner, "task") => Input::Liveness,
            "age" if is_context_field(owner, "task") => Input::TaskAge,
            name if is_context_field(owner, "params") => Input::Param(name.to_owned()),
            _ => return None,
        };
        Some(self.note(input))
    }

    fn note(&mut self, input: Input) -> String {
        let name = input.name();
        self.inputs.insert(input);
        name
    }

    fn unary(&mut self, op: UnaryOp, expr: &Expr) -> Option<String> {
        let unit = match op {
            UnaryOp::Duration => return duration(expr),
            UnaryOp::ToMilliseconds => "milliseconds",
            UnaryOp::ToSeconds => "seconds",
            UnaryOp::ToMinutes => "minutes",
            UnaryOp::ToHours => "hours",
            UnaryOp::ToDays => "days",
            _ => return None,
        };
        Some(format!("{} in {unit}", self.term(expr)?))
    }
}

fn duration(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(Literal::String(text)) => {
            Some(text.parse::<Span>().map_or_else(|_| text.to_string(), |span| span.to_string()))
        }
        _ => None,
    }
}

fn is_context_field(expr: &Expr, field: &str) -> bool {
    match expr {
        Expr::GetAttr { expr, attr } => attr == field && matches!(**expr, Expr::Var(Var::Context)),
        _ => false,
    }
}

fn pattern_text(pattern: &[PatternElem]) -> String {
    let elem = |elem: &PatternElem| match elem {
        PatternElem::Char(c) => *c,
        PatternElem::Wildcard => '*',
    };
    pattern.iter().map(elem).collect()
}

const fn says(holds: bool, yes: &'static str, no: &'static str) -> &'static str {
    if holds { yes } else { no }
}

const fn comparison(op: BinaryOp, holds: bool) -> Option<&'static str> {
    match op {
        BinaryOp::Eq => Some(says(holds, "==", "!=")),
        BinaryOp::NotEq => Some(says(holds, "!=", "==")),
        BinaryOp::Less => Some(says(holds, "<", ">=")),
        BinaryOp::LessEq => Some(says(holds, "<=", ">")),
        BinaryOp::Greater => Some(says(holds, ">", "<=")),
        BinaryOp::GreaterEq => Some(says(holds, ">=", "<")),
        _ => None,
    }
}

const fn arithmetic(op: BinaryOp) -> Option<&'static str> {
    match op {
        BinaryOp::Add => Some("+"),
        BinaryOp::Sub => Some("-"),
        BinaryOp::Mul => Some("*"),
        _ => None,
    }
}
