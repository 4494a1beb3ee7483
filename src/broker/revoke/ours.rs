//! What may be killed from here: what carries this installation's code, in a target that no other store of it answers
//! for (RULES R-11). What may not is told, and waits.

use leasehold_backend::{RevokeOrder, RevokeReport};
use leasehold_law::lease::Reached;
use leasehold_law::principal::PrincipalName;

use crate::broker::Inner;

const NOT_MARKED: &str = "its name does not carry the code of the installation key here, so it is not this broker's to \
                          kill: put the key back that it was minted under, or remove it in the target";
const PROVES_NOTHING: &str = "the claim that this broker made there is gone: another server may be answering, and what it \
                              says proves nothing. See where its address leads; if it is the right one, leasehold \
                              targets sweep NAME --claim";

/// What a call came to.
pub(in crate::broker) struct Killed {
    /// One an order, in their order.
    pub(in crate::broker) reports: Vec<RevokeReport>,
    /// Whether the target, and whoever claimed it, lets these and others die: otherwise they wait until it does. None
    /// where it was not asked for any.
    pub(in crate::broker) answered: Option<bool>,
}

impl Inner {
    /// Kills in a target what may be killed from here.
    pub(in crate::broker) async fn kill_ours(&self, target: &str, orders: Vec<RevokeOrder>) -> Killed {
        let owner = match self.owner_now(target).await {
            Ok(owner) => owner,
            Err(error) => {
                let why = format!("whose the target is cannot be read: {}", error.why.unwrap_or(error.what));
                return Killed::waits(&orders, &why);
            }
        };
        if let Some(why) = owner.forbids_kills() {
            return Killed::waits(&orders, &why.replace("NAME", target));
        }
        let is_ours =
            |order: &RevokeOrder| PrincipalName::verify(order.principal.as_str(), &self.key).is_some();
        let marks: Vec<bool> = orders.iter().map(is_ours).collect();
        // On another server a handle is somebody else's.
        let known = |order: RevokeOrder| RevokeOrder {
            handle: order.handle.filter(|_| owner.is_believed()),
            ..order
        };
        let ours: Vec<_> = orders.into_iter().filter(|order| is_ours(order)).map(known).collect();
        let asked = if ours.is_empty() { Vec::new() } else { self.door.revoke(target, &ours).await };
        let answered = (!ours.is_empty()).then(|| asked.iter().any(is_answer));
        // What was found out meanwhile counts for this call too.
        let believed = owner.is_believed() && self.keep.owner(target).is_believed();
        let mut asked = asked.into_iter();
        let mut report = |ours: bool| match ours.then(|| asked.next()).flatten() {
            Some(report) if believed => report,
            Some(_) => RevokeReport::failed(PROVES_NOTHING.replace("NAME", target)),
            None => RevokeReport::failed(NOT_MARKED),
        };
        let reports: Vec<_> = marks.into_iter().map(&mut report).collect();
        Killed { reports, answered }
    }
}

impl Killed {
    fn waits(orders: &[RevokeOrder], why: &str) -> Self {
        Self { reports: orders.iter().map(|_| RevokeReport::failed(why)).collect(), answered: Some(false) }
    }
}

/// Whether the target said anything: a call in which no report does was not answered.
fn is_answer(report: &RevokeReport) -> bool {
    report.error.is_none() || report.target_now.is_some() || report.reached > Reached::None
}
