//! Step 2 of the road, who: what a connection proved becomes a [`Caller`], looked at anew for every request.
//!
//! Connections are made by [`listener`], which knows mutual TLS with X.509-SVIDs ([`spiffe`]) and unix sockets
//! ([`unix`]). A refused handshake leaves a count in [`Refusals`], never a row per attempt (RULES R-24).

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use http::Extensions;
use leasehold_law::{
    caller::{CallerId, ProvenBy},
    time::Timestamp,
};

pub mod bearer;
pub mod ci;
mod connection;
pub mod issuer;
pub mod jwt_svid;
pub mod kube;
pub mod listener;
pub mod on_behalf_of;
mod origin;
pub mod people;
mod refusal;
mod share;
pub mod spiffe;
mod standing;
pub mod unix;
mod vouched;
pub mod web;

#[cfg(test)]
mod tests;

pub use connection::{Connection, Departure};
pub use refusal::{RefusalCount, RefusalReason, Refusals};
pub use share::{Each, Share};
pub use standing::{Standing, Trouble};

use vouched::Vouched;

/// The clock that this room asks; the broker hands in its own (RULES R-23), tests a fixed one.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Whether anybody registered a caller for the door that it came to. Others get far less of it.
pub type Known = Arc<dyn Fn(&CallerId) -> bool + Send + Sync>;

/// Through which listener a request came. Authority differs by door (RULES R-19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// Agents: their own tasks and leases only.
    Agents,
    /// Operators: admin, revocation and audit.
    Admin,
}

/// A proven caller. Only this room makes one, so holding one is the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    id: CallerId,
    proof: ProvenBy,
    not_after: Option<Timestamp>,
    door: Door,
    login_uid: Option<u32>,
    peer: Option<SocketAddr>,
    groups: BTreeSet<String>,
}

impl Caller {
    /// Who it is: a SPIFFE ID or a local user.
    pub fn id(&self) -> &CallerId {
        &self.id
    }

    /// What the identity rests on.
    pub fn proof(&self) -> ProvenBy {
        self.proof
    }

    /// When the proof itself ends; local users have no such time.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    /// Through which door it came.
    pub fn door(&self) -> Door {
        self.door
    }

    /// The uid that logged in, as the kernel recorded it, even after `sudo`; unix callers only.
    pub fn login_uid(&self) -> Option<u32> {
        self.login_uid
    }

    /// The other end of a TCP connection.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Of the groups that config names for its issuer, those that a person's token puts it in; people only.
    pub fn groups(&self) -> &BTreeSet<String> {
        &self.groups
    }

    fn check(&self, now: Timestamp) -> Result<(), Rejection> {
        match self.not_after {
            Some(not_after) if now >= not_after => Err(Rejection::SvidExpired { not_after }),
            Some(_) | None => Ok(()),
        }
    }
}

/// What a connection carries into each of its requests. Opaque: [`Presented::of`] reads it.
#[derive(Clone, Debug)]
pub struct ConnectInfo(Connected);

#[derive(Clone, Debug)]
enum Connected {
    /// It proved somebody once, for all its requests; a local user needs nobody who vouches for it.
    As(Caller, Arc<Share>, Option<Vouched>),
    /// It proved nobody: each of its requests comes with a token.
    Open(Open),
}

impl ConnectInfo {
    fn vouched(&self) -> Option<Vouched> {
        match &self.0 {
            Connected::As(_, _, vouched) => vouched.clone(),
            Connected::Open(_) => None,
        }
    }
}

/// A connection whose requests come with tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Through which door it came.
    pub door: Door,
    /// Its other end.
    pub peer: SocketAddr,
}

/// Why an identity that was once proven does not count for this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The SVID has passed its end while the connection stayed open (REQUIREMENTS ID-2).
    #[error("the X.509-SVID of this connection expired; connect again with a fresh one")]
    SvidExpired {
        /// The end of the SVID.
        not_after: Timestamp,
    },
    /// The trust bundle behind the SVID was withdrawn while the connection stayed open (REQUIREMENTS ID-2).
    #[error(
        "no trust bundle vouches for the trust domain of this X.509-SVID any more: its federation has ended"
    )]
    BundleWithdrawn,
}

impl Rejection {
    /// What to do about it.
    #[must_use]
    pub const fn next(self) -> &'static str {
        match self {
            Self::SvidExpired { .. } => {
                "connect again with a fresh SVID; leasehold doctor shows what you have"
            }
            Self::BundleWithdrawn => {
                "ask whoever runs this broker's SPIRE server whether the federation was ended on purpose"
            }
        }
    }
}

/// What a request brought as identity. Nothing, a proof and a bad proof are three things.
#[derive(Clone, Debug)]
pub enum Presented {
    /// The request came over a road that proves nobody.
    NotPresented,
    /// The request must bring a token, for [`bearer::Bearers`] to judge.
    Open(Open),
    /// The identity holds at this moment; with what its caller may hold of the door.
    Proven(Caller, Arc<Share>),
    /// An identity was shown and does not hold now.
    Rejected(Rejection),
}

impl Presented {
    /// Reads the identity out of a request's extensions and judges it at `now`.
    pub fn of(extensions: &Extensions, now: Timestamp) -> Self {
        match extensions.get() {
            None => Self::NotPresented,
            Some(ConnectInfo(Connected::Open(open))) => Self::Open(*open),
            Some(ConnectInfo(Connected::As(_, _, Some(vouched)))) if !vouched.holds() => {
                Self::Rejected(Rejection::BundleWithdrawn)
            }
            Some(ConnectInfo(Connected::As(caller, share, _))) => match caller.check(now) {
                Ok(()) => Self::Proven(caller.clone(), share.clone()),
                Err(rejection) => Self::Rejected(rejection),
            },
        }
    }
}
