//! What policy and the registry refuse, and what may be said of why.

use leasehold_law::catalog::{Agent, Autonomy};
use leasehold_law::policy::{Answer, DecisionRecord, Denial, Near};
use leasehold_law::reason::Reason;
use leasehold_law::registry::{LoweredBy, Ruling, Status};

use super::Refused;

impl Refused {
    /// Policy said no, or that people must be asked.
    #[must_use]
    pub fn policy(record: &DecisionRecord) -> Self {
        let what = format!("denied {}", record.pair);
        let refused = match (record.answer, &record.denial) {
            (Answer::Ask, _) => Self::needs_approval(record),
            (_, Some(Denial::Forbidden { by })) => {
                Self::new(Reason::Forbidden, what).why(conditions("forbids", by))
            }
            (_, Some(Denial::PolicyError { policies })) => Self::new(Reason::Forbidden, what)
                .why(format!("policy {} failed on this request, and an error denies", policies.join(", "))),
            (_, Some(Denial::Stopped { status, ruling })) => {
                Self::new(Reason::AgentStopped, what).stopped(&record.agent, *status, ruling.as_ref())
            }
            (_, Some(Denial::BeyondAutonomy { level, lowered })) => {
                Self::new(Reason::BeyondAutonomy, what).beyond(&record.agent, *level, lowered.as_ref())
            }
            (_, Some(Denial::NoPermit { nearest: Some(near) })) => {
                Self::new(Reason::NoPermit, what).why(format!(
                    "no policy permits it; nearest is {}",
                    conditions("needs", std::slice::from_ref(near))
                ))
            }
            (_, Some(Denial::NoPermit { nearest: None }) | None) => {
                Self::new(Reason::NoPermit, what).why("no policy permits it")
            }
        };
        let refused = match refused.next {
            Some(_) => refused,
            None => refused.next(format!("give {} to your platform team", record.id)),
        };
        refused.decided(record.id).detail("pair", &record.pair)
    }

    /// By whom, and what next.
    fn stopped(self, agent: &Agent, status: Status, ruling: Option<&Ruling>) -> Self {
        let (id, status) = (&agent.id, status.name());
        let refused = self.detail("status", status);
        match ruling {
            Some(Ruling { by, reason, at, .. }) => refused
                .why(format!("{id} is {status} since {at} by {by}: \"{reason}\""))
                .next(format!("an admin lets it work again with: leasehold agents resume {id} --reason R")),
            None => refused
                .why(format!("{id} is registered as {status}"))
                .next(format!("{} registered it, and can say why", agent.owner)),
        }
    }

    fn beyond(self, agent: &Agent, level: Autonomy, lowered: Option<&LoweredBy>) -> Self {
        let (id, owner) = (&agent.id, &agent.owner);
        let may = match level {
            Autonomy::Observe => "may only do what is read-only",
            Autonomy::Propose => "may propose, and holds nothing",
            Autonomy::Act => "may act",
        };
        let refused = self.detail("autonomy", level.name());
        let Some(by) = lowered else {
            return refused
                .why(format!("{id} is registered with autonomy {}: it {may}", level.name()))
                .next(format!("{owner} answers for it; what it may do is in its registration"));
        };
        let refused = refused.why(format!("{id} {by}: it {may}"));
        match by {
            LoweredBy::Retired => refused
                .next(format!("an admin lets it work again with: leasehold agents resume {id} --reason R")),
            LoweredBy::Unreviewed { .. } => {
                refused.next(format!("{owner} has it reviewed: leasehold agents review {id}"))
            }
            LoweredBy::Drift { claimed, .. } => {
                let digest = claimed.map_or("DIGEST".to_owned(), |digest| digest.to_string());
                refused.next(format!(
                    "{owner} has it reviewed: leasehold agents review {id} --manifest {digest}"
                ))
            }
        }
    }

    fn needs_approval(record: &DecisionRecord) -> Self {
        let who = record.need.as_ref().map_or("people", |need| need.approvers.as_str());
        Self::new(Reason::NeedsApproval, format!("{} needs approval", record.pair))
            .why(format!("policy asks {who}; this server cannot ask people yet"))
    }
}

fn conditions(verb: &str, policies: &[Near]) -> String {
    let each = |near: &Near| {
        let what = if near.conditions.is_empty() { "it".to_owned() } else { near.conditions.join(" and ") };
        format!("policy \"{}\" {verb} {what}", near.policy)
    };
    policies.iter().map(each).collect::<Vec<_>>().join("; ")
}
