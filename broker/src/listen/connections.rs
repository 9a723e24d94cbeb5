//! Who is connected, and how many come from where.
//!
//! **Invariant:** a count goes down when its guard is dropped and at no other time.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::Conn;

/// The open connections of the programme's door.
#[derive(Debug)]
pub struct Connections {
    per_org_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_number: BTreeMap<u64, Arc<Conn>>,
    per_org: BTreeMap<String, usize>,
}

impl Connections {
    pub(super) fn new(per_org_max: usize) -> Self {
        Self { per_org_max, open: Mutex::default() }
    }

    /// Closes, at once, every connection `matching` holds for, and tells how many there were.
    ///
    /// A handshake under way is not among them: whoever closes connections because of a lock must also refuse the locked
    /// caller's requests.
    pub fn close_where(&self, matching: impl Fn(&Conn) -> bool) -> usize {
        let open = self.lock();
        let matching = open.by_number.values().filter(|conn| matching(conn));
        matching.map(|conn| conn.close()).count()
    }

    /// How many connections are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().by_number.len()
    }

    /// Counts a connection in, unless its organisation has all it may have.
    pub(super) fn enter(self: &Arc<Self>, conn: &Arc<Conn>) -> Option<Seat> {
        let mut open = self.lock();
        let taken = open.per_org.entry(conn.identity().org().to_owned()).or_insert(0);
        if *taken >= self.per_org_max {
            return None;
        }
        *taken += 1;
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, Arc::clone(conn));
        Some(Seat { connections: Arc::clone(self), number })
    }

    fn leave(&self, number: u64) {
        let mut open = self.lock();
        let Some(conn) = open.by_number.remove(&number) else {
            return;
        };
        let org = conn.identity().org();
        if let Some(taken) = open.per_org.get_mut(org) {
            *taken -= 1;
            if *taken == 0 {
                open.per_org.remove(org);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Every change under this lock is complete before anything can panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the count of its organisation.
#[derive(Debug)]
pub(super) struct Seat {
    connections: Arc<Connections>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.leave(self.number);
    }
}

/// How many connections without an identity each address has.
#[derive(Debug)]
pub(super) struct Addresses {
    per_address_max: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    pub(super) fn new(per_address_max: usize) -> Self {
        Self { per_address_max, taken: Mutex::default() }
    }

    /// Counts one in, unless the address has all it may have.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Pass> {
        let address = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_insert(0);
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        Some(Pass { addresses: Arc::clone(self), address })
    }
}

/// An address's claim on one connection without an identity.
#[derive(Debug)]
pub(super) struct Pass {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut taken = self.addresses.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// One host usually holds a whole /64 of IPv6 addresses; it counts as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::identity::{Authority, Identity, Principal, Role};

    fn conn(org: &str, name: &str) -> Arc<Conn> {
        let principal = Principal::new(org, Role::Person, name).unwrap();
        let identity = Identity { principal, serial: "01".to_owned(), not_after_ms: 0, fingerprint: [0; 32] };
        Arc::new(Conn::new(([127, 0, 0, 1], 1).into(), identity, Authority::BuiltIn, Vec::new()))
    }

    #[test]
    fn full_organisation_does_not_crowd_out_another() {
        let connections = Arc::new(Connections::new(1));
        let first = connections.enter(&conn("one", "a")).unwrap();
        assert!(connections.enter(&conn("one", "b")).is_none());
        assert!(connections.enter(&conn("two", "a")).is_some());
        drop(first);
        assert!(connections.enter(&conn("one", "b")).is_some());
        assert_eq!(connections.count(), 0, "dropped seats are free");
    }

    #[test]
    fn closing_reaches_those_meant_and_no_others() {
        let connections = Arc::new(Connections::new(9));
        let (alice, bob) = (conn("one", "alice"), conn("one", "bob"));
        let _seats = (connections.enter(&alice).unwrap(), connections.enter(&bob).unwrap());
        assert_eq!(connections.close_where(|conn| conn.identity().name() == "alice"), 1);
        assert!(alice.kill().fired());
        assert!(!bob.kill().fired());
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let addresses = Arc::new(Addresses::new(1));
        let pass = addresses.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert!(addresses.admit("2001:db8::2".parse().unwrap()).is_none());
        assert!(addresses.admit("2001:db8:0:1::2".parse().unwrap()).is_some());
        assert!(addresses.admit("192.0.2.1".parse().unwrap()).is_some());
        drop(pass);
        assert!(addresses.admit("2001:db8::2".parse().unwrap()).is_some());
    }
}
