//! What a target can do, as a value that is checked against grants when config loads.

use leasehold_law::lease::Grade;
use leasehold_law::time::Span;

/// How a principal is found again when all that is known is its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Findable {
    /// By its name.
    ByName,
    /// Only by listing all of them.
    ByListing,
    /// Not at all.
    No,
}

/// What a target can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How dead "revoked" is.
    pub grade: Grade,
    /// What stays open at worst after a revocation.
    pub window: Span,
    /// How a principal is found again.
    pub findable: Findable,
    /// Whether the target itself refuses logins after the end.
    pub enforces_expiry: bool,
    /// Whether the end of a principal can be moved. Without it a renewal is a new lease.
    pub renewal: bool,
    /// The longest lifetime that the target gives, if it limits it.
    pub max_natural_life: Option<Span>,
    /// Whether principals can be listed, for the orphan sweep.
    pub lists: bool,
    /// Whether it outlives the broker's process. One that does not is empty at each start, its claim with the rest.
    pub lasts: bool,
}
