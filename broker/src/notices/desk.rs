//! What waits to be told to whom: a state machine without clock, file or socket.
//!
//! **Invariant:** an identifier is on the desk of its organisation once, and not again after it was settled; one attempt at a
//! time goes to one contact.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anteroom_policy::{event::NoticeSettled, notices::Notice, standing::Standing, state::State};
use anteroom_proto::{
    names::{ContactId, OrgId},
    statement::contacts::{Contact, Destination, NoticeKind},
    time::At,
};
use serde::{Deserialize, Serialize};

use super::SendError;

/// Most notices that wait for one organisation.
pub(super) const PENDING_MAX: usize = 256;
/// How many identifiers are remembered after they were settled.
const DONE_MAX: usize = 4096;
/// How far the file may be behind while nothing waits.
const KEPT_MS: i64 = 60_000;
const KEPT_RECORDS: u64 = 16_384;
/// From one attempt to the next, doubled each time.
const BACKOFF_MS: i64 = 30_000;
/// Longest wait between two attempts: an hour, and five minutes where an hour is all there is.
const BACKOFF_MS_MAX: i64 = 3_600_000;
const BACKOFF_SOON_MS_MAX: i64 = 300_000;

/// An organisation and a notice's identifier.
pub(super) type Key = (OrgId, String);

/// Everything that waits, and how far the ledger was looked through.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Desk {
    /// First record that was not looked at.
    pub(super) next: u64,
    /// The last look at the clock while it was trusted.
    pub(super) looked: At,
    pending: Vec<Pending>,
    done: VecDeque<Key>,
    #[serde(skip)]
    busy: BTreeSet<(OrgId, ContactId)>,
    #[serde(skip)]
    dirty: bool,
    /// When it was kept last, and how far it was then.
    #[serde(skip)]
    kept: Option<(At, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    notice: Notice,
    contacts: BTreeMap<ContactId, Way>,
}

/// How far delivery to one contact is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Way {
    attempts: u32,
    next: At,
    end: Option<bool>,
}

/// A message to send now.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) key: Key,
    pub(super) notice: Notice,
    pub(super) contact: ContactId,
    pub(super) to: Destination,
}

/// How an attempt went.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) key: Key,
    pub(super) contact: ContactId,
    pub(super) result: Result<(), SendError>,
}

impl Pending {
    fn is(&self, key: &Key) -> bool {
        self.notice.org == key.0 && self.notice.id == key.1
    }

    fn key(&self) -> Key {
        (self.notice.org.clone(), self.notice.id.clone())
    }
}

impl Desk {
    pub(super) fn new(next: u64, looked: At) -> Self {
        let (pending, done) = (Vec::new(), VecDeque::new());
        Self { next, looked, pending, done, busy: BTreeSet::new(), dirty: true, kept: None }
    }

    /// Notices that wait.
    pub(super) fn pending(&self) -> u64 {
        u64::try_from(self.pending.len()).unwrap_or(u64::MAX)
    }

    /// Takes what is new and somebody wants to be told of; how many had no room.
    pub(super) fn take_all(&mut self, state: &State, notices: Vec<Notice>) -> u64 {
        let mut dropped = 0_u64;
        for notice in notices {
            let key = (notice.org.clone(), notice.id.clone());
            if self.done.contains(&key) || self.pending.iter().any(|pending| pending.is(&key)) {
                continue;
            }
            let wanting = contacts(state.standing(), &notice.org).iter().filter(|contact| contact.wants(notice.kind));
            let fresh = |contact: &Contact| (contact.id.clone(), Way { attempts: 0, next: notice.due, end: None });
            let wanting: BTreeMap<_, _> = wanting.map(fresh).collect();
            if wanting.is_empty() {
                continue;
            }
            if self.pending.iter().filter(|pending| pending.notice.org == notice.org).count() >= PENDING_MAX {
                dropped = dropped.saturating_add(1);
                continue;
            }
            self.pending.push(Pending { notice, contacts: wanting });
            self.dirty = true;
        }
        dropped
    }

    /// What to send now. Contacts that are on the list no more, and those whose time is over, are given up on.
    pub(super) fn due(&mut self, state: &State, now: At) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for pending in &mut self.pending {
            let (org, over) = (&pending.notice.org, now >= pending.notice.give_up());
            let listed = contacts(state.standing(), org);
            for (id, way) in pending.contacts.iter_mut().filter(|(_, way)| way.end.is_none()) {
                let seat = (org.clone(), id.clone());
                if self.busy.contains(&seat) {
                    continue;
                }
                let Some(contact) = listed.iter().find(|contact| contact.id == *id).filter(|_| !over) else {
                    way.end = Some(false);
                    self.dirty = true;
                    continue;
                };
                if way.next > now {
                    continue;
                }
                way.attempts = way.attempts.saturating_add(1);
                self.busy.insert(seat);
                attempts.push(Attempt {
                    key: (org.clone(), pending.notice.id.clone()),
                    notice: pending.notice.clone(),
                    contact: id.clone(),
                    to: contact.to.clone(),
                });
            }
        }
        attempts
    }

    /// An attempt came back.
    pub(super) fn tried(&mut self, tried: Tried, now: At) {
        self.busy.remove(&(tried.key.0.clone(), tried.contact.clone()));
        let pending = self.pending.iter_mut().find(|pending| pending.is(&tried.key));
        let Some(pending) = pending else { return };
        let most = if pending.notice.kind == NoticeKind::EndsIn1h { BACKOFF_SOON_MS_MAX } else { BACKOFF_MS_MAX };
        let Some(way) = pending.contacts.get_mut(&tried.contact) else { return };
        self.dirty = true;
        if tried.result.is_ok() {
            way.end = Some(true);
            return;
        }
        let doubled = BACKOFF_MS.saturating_mul(1_i64.checked_shl(way.attempts.saturating_sub(1).min(20)).unwrap_or(1));
        way.next = now.plus_ms(doubled.min(most));
    }

    /// A start tries at once whatever waits.
    pub(super) fn wake(&mut self, now: At) {
        for way in self.pending.iter_mut().flat_map(|pending| pending.contacts.values_mut()) {
            way.next = way.next.min(now);
        }
    }

    /// Attempts under way are forgotten.
    pub(super) fn forget_attempts(&mut self) {
        self.busy.clear();
    }

    /// What has come to its end with every contact, `most` at a time.
    pub(super) fn finished(&self, most: usize) -> Vec<(Key, NoticeSettled)> {
        let over = self.pending.iter().filter(|pending| pending.contacts.values().all(|way| way.end.is_some()));
        let settled = over.take(most).map(|pending| {
            let of = |end: bool| {
                let ids = pending.contacts.iter().filter(|(_, way)| way.end == Some(end));
                ids.map(|(id, _)| id.clone()).collect()
            };
            let attempts = pending.contacts.values().fold(0_u32, |sum, way| sum.saturating_add(way.attempts));
            let Notice { id, kind, grant, due, .. } = pending.notice.clone();
            let settled =
                NoticeSettled { notice: id, kind, grant, due, delivered: of(true), failed: of(false), attempts };
            (pending.key(), settled)
        });
        settled.collect()
    }

    /// What became of it is on record.
    pub(super) fn settled(&mut self, key: Key) {
        self.pending.retain(|pending| !pending.is(&key));
        self.dirty = true;
        if self.done.contains(&key) {
            return;
        }
        self.done.push_back(key);
        while self.done.len() > DONE_MAX {
            self.done.pop_front();
        }
    }

    /// What to keep, if something changed, or if so much was looked at since that a start would take long.
    pub(super) fn changed(&mut self, now: At) -> Option<Vec<u8>> {
        let far = self
            .kept
            .is_none_or(|(at, next)| now.since(at) >= KEPT_MS || self.next.saturating_sub(next) >= KEPT_RECORDS);
        if !std::mem::take(&mut self.dirty) && !far {
            return None;
        }
        self.kept = Some((now, self.next));
        serde_json::to_vec(self).ok()
    }
}

/// An organisation's contacts, as they stand.
fn contacts<'s>(standing: &'s Standing, org: &OrgId) -> &'s [Contact] {
    standing.contacts.get(org).map_or(&[], |standing| &standing.set.contacts.contacts)
}
