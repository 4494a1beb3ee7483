//! Where strangers come from: before a handshake has said who they are, their address is all there is to share by.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The part of an IPv6 address that is not the host's own choice: whoever has one address of a /64 has them all.
const PREFIX: u128 = u128::MAX << 64;

/// An address as far as it tells one stranger from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

impl Origin {
    fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & PREFIX))),
        }
    }
}

/// How many handshakes each origin has open; of those that have none nothing is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(Arc<Mutex<HashMap<Origin, usize>>>);

/// An origin's place for one handshake, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    origins: Origins,
    origin: Origin,
}

impl Origins {
    /// A place for one more handshake, where the peer's origin has fewer than `most`.
    pub(super) fn enter(&self, peer: IpAddr, most: usize) -> Option<Place> {
        let origin = Origin::of(peer);
        let mut open = self.lock();
        let held = open.get(&origin).copied().unwrap_or(0);
        if held >= most {
            return None;
        }
        open.insert(origin, held.saturating_add(1));
        Some(Place { origins: self.clone(), origin })
    }

    fn leave(&self, origin: Origin) {
        let mut open = self.lock();
        match open.get(&origin).copied() {
            Some(held) if held > 1 => {
                open.insert(origin, held - 1);
            }
            Some(_) | None => {
                open.remove(&origin);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.origins.leave(self.origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_an_ipv4_address_or_an_ipv6_prefix() {
        let same =
            |one: &str, other: &str| Origin::of(one.parse().unwrap()) == Origin::of(other.parse().unwrap());
        assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"), "IPv4 is not one /64");
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn a_place_is_free_again_when_it_is_dropped_and_is_forgotten_then() {
        let origins = Origins::default();
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> = (0..2).map(|_| origins.enter(peer, 2).unwrap()).collect();
        assert!(origins.enter(peer, 2).is_none());
        assert!(origins.enter("192.0.2.2".parse().unwrap(), 2).is_some());
        drop(held);
        assert!(origins.lock().is_empty());
        assert!(origins.enter(peer, 2).is_some());
    }
}
