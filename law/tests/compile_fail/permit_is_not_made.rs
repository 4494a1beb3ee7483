use leasehold_law::id::DecisionId;
use leasehold_law::policy::Permit;
use leasehold_law::scope::Pair;

fn made_up(decision: DecisionId, pair: Pair) -> Permit {
    Permit::new(decision, pair, false, Vec::new())
}

fn main() {}
