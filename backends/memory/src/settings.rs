//! What kind of target is played: its capabilities, as a value.

use leasehold_backend::{Capabilities, Findable};
use leasehold_law::lease::Grade;
use leasehold_law::time::Span;

/// How long a session goes on in a target of grade coarse, unless it is set.
const COARSE_WINDOW: Span = Span::from_mins(5);

/// What a memory target can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings(pub Capabilities);

impl Default for Settings {
    fn default() -> Self {
        Self::of(Grade::Exact)
    }
}

impl Settings {
    /// A target of this grade, with all else that such a target can have.
    #[must_use]
    pub fn of(grade: Grade) -> Self {
        let window = match grade {
            Grade::Exact => Span::ZERO,
            Grade::Coarse => COARSE_WINDOW,
            Grade::None => Span(u64::MAX),
        };
        Self(Capabilities {
            grade,
            window,
            findable: Findable::ByName,
            enforces_expiry: true,
            renewal: grade == Grade::Exact,
            max_natural_life: None,
            lists: true,
            lasts: true,
        })
    }
}
