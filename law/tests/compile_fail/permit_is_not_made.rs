use leasehold_law::policy::{Permit, Question};

fn made_up(question: &Question<'_>) -> Permit {
    Permit::new(question)
}

fn main() {}
