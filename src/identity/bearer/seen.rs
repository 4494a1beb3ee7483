//! Proofs that came before: each is good for one request (RFC 9449 section 11.1).

use std::collections::{BTreeMap, HashSet};

use leasehold_jose::Proof;
use leasehold_jose::proof::FRESH;
use leasehold_law::time::Timestamp;
use ring::digest;

/// Proofs by the second in which they were made, for as long as one may come. Only those of callers that are proven get
/// here, so no stranger fills it.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<Timestamp, HashSet<[u8; 16]>>);

impl Seen {
    /// Whether a proof comes for the first time; it is remembered.
    pub(super) fn is_first(&mut self, proof: &Proof, now: Timestamp) -> bool {
        // Older ones are refused as stale before anybody asks here.
        let oldest = Timestamp(now.0.saturating_sub(2 * i64::try_from(FRESH.0).unwrap_or(i64::MAX / 2)));
        self.0 = self.0.split_off(&oldest);
        self.0.entry(proof.made_at).or_default().insert(name_of(proof))
    }
}

/// Half of a digest: short, and none is like another by chance.
fn name_of(proof: &Proof) -> [u8; 16] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(proof.thumbprint.as_str().as_bytes());
    context.update(proof.id.as_bytes());
    let mut name = [0; 16];
    name.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    name
}

#[cfg(test)]
mod tests {
    use leasehold_jose::ProofKey;
    use leasehold_jose::proof::{Demand, check};
    use leasehold_law::time::Span;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    fn proof(key: &ProofKey, now: Timestamp) -> Proof {
        let made = key.prove("POST", "https://b/c", "t", now).unwrap();
        check(&made, &Demand { method: "POST", url: "https://b/c", token: "t", now }).unwrap()
    }

    #[test]
    fn a_proof_counts_once_for_as_long_as_it_may_come() {
        let (mut seen, key) = (Seen::default(), ProofKey::generate().unwrap());
        let (one, other) = (proof(&key, NOW), proof(&key, NOW));
        assert!(seen.is_first(&one, NOW) && seen.is_first(&other, NOW));
        assert!(!seen.is_first(&one, NOW + FRESH), "it is not yet stale");
        assert!(seen.is_first(&proof(&key, NOW + FRESH + FRESH), NOW + FRESH + FRESH + Span::from_secs(2)));
        assert_eq!(seen.0.len(), 1, "what is stale is forgotten");
    }
}
