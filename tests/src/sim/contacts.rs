//! Lists of contacts, also by the wrong keys, after what is no longer in force and such as nobody can use; and what became of
//! notices, also to whoever never wanted any.

use anteroom_policy::{command::Command, event::NoticeSettled};
use anteroom_proto::{
    names::{Digest, OrgId},
    statement::{
        contacts::{CONTACTS_MAX, Contact, Contacts, NoticeKind},
        key_set::OrgKind,
    },
};

use super::{
    acts::{Draft, digest},
    cast::Org,
    model::{Deed, What, contacts::MContacts},
    world::{Step, World},
};

impl World {
    /// An organisation says where it wants to be told.
    pub(super) fn contacts(&mut self) -> Step {
        let by = self.rng.index(self.cast.len());
        let name = self.cast[by].name.clone();
        let usable = self.rng.chance(80);
        let count = if usable { self.rng.index(4) } else { CONTACTS_MAX + 1 };
        let contact = |at: usize| Contact {
            id: format!("c{at}").parse().expect("a name"),
            to: if at.is_multiple_of(2) { "mailto:duty@a.example" } else { "https://a.example/in" }
                .parse()
                .expect("a contact"),
            notices: if at == 2 { vec![NoticeKind::Paused] } else { Vec::new() },
        };
        let stands = self.model.contacts.get(&name).map(|known| known.statement);
        let previous = match self.rng.below(8) {
            0 => None,
            1 => Some(Digest::from_bytes(self.rng.bytes())),
            _ => stands,
        };
        let contacts = Contacts { by: name, contacts: (0..count).map(contact).collect(), previous };
        let org = &self.cast[by];
        if self.rng.chance(4) {
            return Draft::new(org, Org::signed_by(&contacts, &org.stop), What::Junk).step();
        }
        let statement = org.signed(&contacts);
        let what = MContacts { contacts, usable, statement: digest(&statement) };
        let mut draft = Draft::new(org, statement, What::Contacts(Box::new(what)));
        if org.kind == OrgKind::Operator {
            // Signed by its roots, which every version of its key set shares.
            draft.signed = None;
        }
        draft.step()
    }

    /// The broker says what became of a notice.
    pub(super) fn notice(&mut self) -> Step {
        let told: Vec<OrgId> = self.model.contacts.keys().cloned().collect();
        let org = match self.rng.pick(&told) {
            Some(org) if self.rng.chance(85) => org.clone(),
            _ => self.cast[self.rng.index(self.cast.len())].name.clone(),
        };
        let now = self.broker_now().at;
        let kind = *self.rng.pick(NoticeKind::ALL).expect("there are some");
        let ids = |ids: &[&str]| ids.iter().map(|id| id.parse().expect("a name")).collect();
        let settled = NoticeSettled {
            notice: format!("{}/{}", kind.as_str(), self.rng.below(1000)),
            kind,
            grant: None,
            due: now,
            delivered: ids(&["c0"]),
            failed: if self.rng.chance(30) { ids(&["c1"]) } else { Vec::new() },
            attempts: 1,
        };
        let deed = Deed::Notice(org.clone());
        Step { command: Command::NoticeSettled { org, settled: Box::new(settled) }, deed }
    }
}
