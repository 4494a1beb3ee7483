//! How long a lease may live: the least of all that limits it (CRED-4).

use crate::lease::LimitedBy;
use crate::time::Span;

/// What limits the lifetime of one lease, as of now.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What was asked, or the grant's default.
    pub asked: Span,
    /// The grant's longest lifetime.
    pub grant: Span,
    /// What is left of its full life, all renewals together.
    pub life: Span,
    /// What the scope of the task allows.
    pub scope: Option<Span>,
    /// What is left until the task's deadline.
    pub deadline: Span,
    /// The longest lifetime that the target gives.
    pub backend: Option<Span>,
}

impl Limits {
    /// The least of them, and which one it is; what was asked wins a tie, then the order of the fields.
    #[must_use]
    pub fn least(&self) -> (Span, LimitedBy) {
        let others = [
            (Some(self.grant), LimitedBy::Grant),
            (Some(self.life), LimitedBy::Life),
            (self.scope, LimitedBy::Scope),
            (Some(self.deadline), LimitedBy::TaskDeadline),
            (self.backend, LimitedBy::Backend),
        ];
        others
            .into_iter()
            .filter_map(|(limit, by)| limit.map(|limit| (limit, by)))
            .fold((self.asked, LimitedBy::Asked), |least, next| if next.0 < least.0 { next } else { least })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_wins_and_says_so() {
        let base = Limits {
            asked: Span(100),
            grant: Span(200),
            life: Span(300),
            scope: None,
            deadline: Span(400),
            backend: None,
        };
        let check = |limits: Limits, expect| assert_eq!(limits.least(), expect);
        check(base, (Span(100), LimitedBy::Asked));
        check(Limits { asked: Span(250), ..base }, (Span(200), LimitedBy::Grant));
        check(Limits { asked: Span(200), ..base }, (Span(200), LimitedBy::Asked));
        check(Limits { life: Span(50), ..base }, (Span(50), LimitedBy::Life));
        check(Limits { scope: Some(Span(60)), ..base }, (Span(60), LimitedBy::Scope));
        check(Limits { deadline: Span::ZERO, ..base }, (Span::ZERO, LimitedBy::TaskDeadline));
        check(Limits { backend: Some(Span(70)), ..base }, (Span(70), LimitedBy::Backend));
    }
}
