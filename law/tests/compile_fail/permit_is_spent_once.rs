use leasehold_law::policy::{MintTerms, Permit};

fn twice(permit: Permit, one: MintTerms, two: MintTerms) {
    let _ = permit.into_order(one);
    let _ = permit.into_order(two);
}

fn main() {}
