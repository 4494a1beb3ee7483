//! What may happen: the pure law of Leasehold.
