use leasehold_law::id::DecisionId;
use leasehold_law::policy::{IssueOrder, MintTerms, Permit};
use leasehold_law::scope::Pair;

fn permit(decision: DecisionId, pair: Pair) -> Permit {
    Permit { decision, pair, params: None, renewal: false, guards: Vec::new() }
}

fn order(mint: MintTerms) -> IssueOrder {
    IssueOrder { guards: Vec::new(), mint }
}

fn main() {}
