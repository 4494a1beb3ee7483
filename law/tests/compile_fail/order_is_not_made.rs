use leasehold_law::policy::{IssueOrder, MintTerms};

fn assembled(mint: MintTerms) -> IssueOrder {
    IssueOrder { guards: Vec::new(), mint }
}

fn main() {}
