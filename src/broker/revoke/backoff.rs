//! How long to wait before the next try.

use leasehold_law::time::Span;

/// Doubled with each try from `first` up to `most`, and up to a quarter less by `spread`, so that what failed together
/// is not tried again together.
pub(super) fn wait(first: Span, most: Span, tries: u32, spread: u64) -> Span {
    let full = first.0.saturating_mul(1_u64 << tries.min(32)).min(most.0);
    Span(full * 3 / 4 + spread % (full / 4).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_cap() {
        for spread in [0, 1, 7, 12_345, u64::MAX] {
            let waits: Vec<_> = (0..9).map(|tries| wait(Span(1000), Span(60_000), tries, spread).0).collect();
            assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
            assert!((750..1000).contains(&waits[0]) && (45_000..60_000).contains(&waits[8]), "{waits:?}");
        }
        assert!(wait(Span(1), Span(4000), u32::MAX, 3).0 < 4000);
    }
}
