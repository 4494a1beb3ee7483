//! The person that a task acts for, as their own token said (REQUIREMENTS TASK-1, DEL-3).

use serde::{Deserialize, Serialize};

use crate::caller::Vouched;
use crate::time::{Span, Timestamp};

/// How long after the end of a person's token a task that acts for them goes on without a newer one.
pub const SESSION_GRACE: Span = Span::from_secs(60);

/// The longest that an agent on a person's machine acts in their session, counted from the sign-in.
pub const PERSONAL_SESSION: Span = Span::from_mins(8 * 60);

/// Who stands behind a task. Never what an agent says of itself: what a verified token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnBehalfOf {
    /// The person.
    pub person: Vouched,
    /// The end of the token that proved it, which a newer one moves; none, where the agent's own proof is that
    /// person's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}
