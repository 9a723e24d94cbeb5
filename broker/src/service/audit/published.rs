//! The published checkpoint for whoever asks, and cosignatures by organisations' own witnesses.
//!
//! **Invariant:** a line is added to the published note only after it held over exactly that note's text under a key in the `witness`
//! role of the organisation that hands it in.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use anteroom_policy::refusal::Refusal;
use anteroom_proto::{
    ledger::{
        note::{KeyName, Note, NoteSignature, VerifierKey},
        tree::Hash,
    },
    names::OrgId,
    rpc::{CosignRequest, GetPublishedReply, GetPublishedRequest},
};

use super::Audit;
use crate::{
    book::published::{CosignError, Head},
    status::Reject,
};

/// How many cosigned heads are remembered after newer ones were published.
const WITNESSED_MAX: usize = 64;
/// How many organisations can be asked for at once.
const ORGANISATIONS_MAX: usize = 8;

/// The newest heads that organisations' witnesses cosigned, smallest first. A start forgets them.
#[derive(Debug, Default)]
pub(super) struct Witnessed(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    head: Arc<Head>,
    orgs: BTreeSet<OrgId>,
}

impl Witnessed {
    fn add(&self, head: Arc<Head>, org: &OrgId) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.iter_mut().find(|kept| kept.head.size == head.size) {
            Some(same) => {
                same.orgs.insert(org.clone());
                // Two that cosign at once may come here in either order.
                if head.note.signatures().len() >= same.head.note.signatures().len() {
                    same.head = head;
                }
            }
            None => {
                let at = kept.partition_point(|other| other.head.size < head.size);
                kept.insert(at, Kept { head, orgs: BTreeSet::from([org.clone()]) });
                if kept.len() > WITNESSED_MAX {
                    kept.pop_front();
                }
            }
        }
    }

    /// The newest of at least `size` that every one of `orgs` cosigned.
    fn newest(&self, size: u64, orgs: &BTreeSet<OrgId>) -> Option<Arc<Head>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |kept: &&Kept| kept.head.size >= size && orgs.is_subset(&kept.orgs);
        kept.iter().rev().find(fits).map(|kept| Arc::clone(&kept.head))
    }
}

impl Audit {
    pub(super) fn published(&self, request: &GetPublishedRequest) -> Result<GetPublishedReply, Reject> {
        self.shown.check(&request.seen)?;
        let seen = request.seen_size;
        let size = self.journal.newest().size;
        if seen > size {
            return Err(Reject::new(Refusal::CheckpointDiverges).fact("size", size));
        }
        if request.organisations.len() > ORGANISATIONS_MAX {
            return Err(Reject::new(Refusal::Unsupported).detail("more organisations than can be asked for at once"));
        }
        let orgs: Result<BTreeSet<OrgId>, _> = request.organisations.iter().map(|org| OrgId::parse(org)).collect();
        let orgs = orgs.map_err(|_| Refusal::OrgUnknown)?;
        let Some(head) = self.published.newest() else { return Ok(GetPublishedReply::default()) };
        let witnessed = self.witnessed.newest(seen, &orgs);
        Ok(GetPublishedReply {
            checkpoint: head.note.encode(),
            consistency: self.proof(seen, head.size),
            witnessed_consistency: witnessed.as_ref().map_or_else(Vec::new, |head| self.proof(seen, head.size)),
            witnessed: witnessed.map_or_else(String::new, |head| head.note.encode()),
        })
    }

    fn proof(&self, from: u64, to: u64) -> Vec<Vec<u8>> {
        let proof = self.journal.consistency(from, to).unwrap_or_default();
        proof.iter().map(|hash: &Hash| hash.as_bytes().to_vec()).collect()
    }

    /// Takes a cosignature by a witness of `org`.
    pub(super) fn cosigned(&self, org: &OrgId, request: &CosignRequest) -> Result<(), Reject> {
        let invalid = |why: String| Reject::new(Refusal::CosignatureInvalid).detail(why);
        let line = NoteSignature::parse(&request.line).map_err(|error| invalid(error.to_string()))?;
        let key = self.witness(org, &line)?;
        let superseded = |published: u64| Reject::new(Refusal::CheckpointSuperseded).fact("size", published);
        let head = self.published.newest().ok_or_else(|| superseded(0))?;
        if head.size != request.size {
            return Err(superseded(head.size));
        }
        let alone = Note::new(head.note.text().to_owned(), vec![line.clone()]);
        let alone = alone.map_err(|error| invalid(error.to_string()))?;
        alone.verify(std::slice::from_ref(&key), &[]).map_err(|error| invalid(error.to_string()))?;
        // A line that stands there says all that a later one of the same key would.
        if head.note.signatures().iter().any(|other| key.made(other)) {
            self.witnessed.add(head, org);
            return Ok(());
        }
        match self.published.cosigned(request.size, &[line]) {
            Ok(head) => self.witnessed.add(head, org),
            Err(CosignError::Superseded { published, .. }) => return Err(superseded(published)),
            Err(error @ CosignError::Full) => return Err(Reject::new(Refusal::Busy).detail(error.to_string())),
        }
        Ok(())
    }

    /// The key that `line` names, if it is a witness of `org`.
    fn witness(&self, org: &OrgId, line: &NoteSignature) -> Result<VerifierKey, Reject> {
        let standing = self.journal.standing();
        let held = standing.orgs.get(org).ok_or(Refusal::OrgUnknown)?;
        let origin = KeyName::parse(&standing.origin).map_err(|_| Refusal::WitnessUnknown)?;
        let keys = held.key_set.witnesses(&origin);
        keys.into_iter().find(|key| key.made(line)).ok_or_else(|| Refusal::WitnessUnknown.into())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_policy::command::Command;
    use anteroom_proto::{
        ledger::{
            checkpoint::{LogTrust, cosign_with},
            tree::verify_consistency,
        },
        rpc::audit_server::Audit as _,
        statement::{envelope::Signer as _, witness::witness_key},
    };
    use tonic::{Request, Status};

    use super::*;
    use crate::{
        book::published::Published,
        identity::Role,
        index::Index,
        service::audit::tests::quiet,
        testing::{Key, ORIGIN, Party, World},
    };

    struct Desk {
        world: World,
        published: Arc<Published>,
        audit: Audit,
    }

    impl Desk {
        async fn open() -> Self {
            let world = World::new().await;
            let published = Arc::new(Published::default());
            let index = Index::open(&world.folder.path().join("index"), &world.journal);
            let audit = Audit::new(world.journal.clone(), index, Arc::clone(&published), quiet(&world));
            Self { world, published, audit }
        }

        /// Publishes the newest checkpoint, as the publisher does; its size.
        fn publish(&self) -> u64 {
            let newest = self.world.journal.newest();
            let note = Note::parse(newest.note.as_bytes()).unwrap();
            let root = self.world.journal.root_at(newest.size).unwrap();
            self.published.publish(Head { size: newest.size, root, note });
            newest.size
        }

        async fn grow(&self) {
            let _ = self.world.journal.submit(Command::Start { version: "1".to_owned(), alive: None }).await.unwrap();
        }

        async fn cosign(&self, party: &Party, size: u64, line: String) -> Result<(), Status> {
            self.audit.cosign(request(party, CosignRequest { size, line })).await.map(drop)
        }

        async fn ask(&self, seen_size: u64, orgs: &[&Party]) -> Result<GetPublishedReply, Status> {
            let organisations = orgs.iter().map(|party| party.org.to_string()).collect();
            let asked = GetPublishedRequest { seen_size, organisations, seen: String::new() };
            Ok(self.audit.get_published(request(&self.world.lab, asked)).await?.into_inner())
        }

        /// The line by which `key`, named as `party`'s witness, cosigns what is published.
        fn line(&self, party: &Party, key: &Key, time: u64) -> String {
            let head = self.published.newest().unwrap();
            let verified = self.world.trust().verify(head.note.clone()).unwrap();
            let vkey = witness_key(&KeyName::parse(ORIGIN).unwrap(), &party.org, key.public_key()).unwrap();
            cosign_with(&vkey, &verified, time, |message| key.sign(message).ok()).unwrap().to_string()
        }

        fn cosigners(&self, note: &str) -> Vec<String> {
            let origin = KeyName::parse(ORIGIN).unwrap();
            let parties = [&self.world.lab, &self.world.agency, &self.world.overseer];
            let keys = parties.map(|party| witness_key(&origin, &party.org, party.witness.public_key()).unwrap());
            let trust = LogTrust::new(self.world.log.verifier().clone(), keys.to_vec(), 0).unwrap();
            let verified = trust.open(note.as_bytes()).unwrap();
            verified.cosigners().iter().map(|by| by.key().name().to_string()).collect()
        }
    }

    fn request<T>(party: &Party, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request.extensions_mut().insert(party.conn(Role::Connector, "c-1"));
        request
    }

    fn code(result: Result<(), Status>) -> String {
        let status = result.unwrap_err();
        status.metadata().get(crate::status::CODE_KEY).unwrap().to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn nothing_is_published_before_the_first_publication() {
        let desk = Desk::open().await;
        assert_eq!(desk.ask(0, &[]).await.unwrap(), GetPublishedReply::default());
        let size = desk.world.journal.newest().size;
        assert_eq!(code(desk.ask(size + 1, &[]).await.map(drop)), "checkpoint_diverges");
        let _ = desk.publish();
        let line = desk.line(&desk.world.lab, &desk.world.lab.witness, 1);
        let fresh = Desk::open().await;
        assert_eq!(code(fresh.cosign(&fresh.world.lab, size, line).await), "witness_unknown", "of another world");
        let own = fresh.publish();
        let line = fresh.line(&fresh.world.lab, &fresh.world.lab.witness, 1);
        assert_eq!(code(fresh.cosign(&fresh.world.lab, own + 1, line).await), "checkpoint_superseded");
    }

    #[tokio::test]
    async fn both_parties_cosignatures_stand_on_the_published_note_and_are_found_later() {
        let desk = Desk::open().await;
        let (lab, agency) = (&desk.world.lab, &desk.world.agency);
        let size = desk.publish();
        desk.cosign(lab, size, desk.line(lab, &lab.witness, 7)).await.unwrap();
        assert_eq!(desk.ask(size, &[lab, agency]).await.unwrap().witnessed, "");
        desk.cosign(agency, size, desk.line(agency, &agency.witness, 8)).await.unwrap();
        let names = vec!["broker.test/log/witness/acme".to_owned(), "broker.test/log/witness/aisi".to_owned()];
        assert_eq!(desk.cosigners(&desk.ask(0, &[]).await.unwrap().checkpoint), names);

        desk.grow().await;
        let newer = desk.publish();
        desk.cosign(lab, newer, desk.line(lab, &lab.witness, 9)).await.unwrap();
        let reply = desk.ask(3, &[lab, agency]).await.unwrap();
        assert_eq!(desk.cosigners(&reply.witnessed), names);
        let point = |note: &str| {
            let verified = desk.world.trust().open(note.as_bytes()).unwrap();
            (verified.checkpoint().size(), *verified.checkpoint().root())
        };
        assert_eq!((point(&reply.witnessed).0, point(&reply.checkpoint).0), (size, newer));
        let seen = desk.world.journal.root_at(3).unwrap();
        let shown = [(&reply.witnessed, &reply.witnessed_consistency), (&reply.checkpoint, &reply.consistency)];
        for (note, proof) in shown {
            let proof: Vec<Hash> = proof.iter().map(|hash| Hash::try_from(hash.as_slice()).unwrap()).collect();
            let (to, root) = point(note);
            verify_consistency(3, to, &seen, &root, &proof).unwrap();
        }
        let newest = desk.ask(size, &[lab]).await.unwrap().witnessed;
        assert_eq!(point(&newest).0, newer, "the newest that the lab cosigned");
        assert_eq!(desk.ask(newer, &[lab, agency]).await.unwrap().witnessed, "", "both on one smaller than seen");
    }

    #[tokio::test]
    async fn only_a_witness_of_the_callers_own_organisation_is_taken() {
        let desk = Desk::open().await;
        let (lab, agency) = (&desk.world.lab, &desk.world.agency);
        let size = desk.publish();
        let lines = [
            ("another's", desk.line(agency, &agency.witness, 1)),
            ("a key in another role", desk.line(lab, &lab.signer, 1)),
            ("a stranger's key", desk.line(lab, &Key::generate(), 1)),
        ];
        for (whose, line) in lines {
            assert_eq!(code(desk.cosign(lab, size, line).await), "witness_unknown", "{whose}");
        }
        assert_eq!(desk.cosigners(&desk.ask(0, &[]).await.unwrap().checkpoint), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_line_that_does_not_hold_over_the_published_note_is_refused() {
        let desk = Desk::open().await;
        let lab = &desk.world.lab;
        let first = desk.publish();
        let old = desk.line(lab, &lab.witness, 1);
        desk.grow().await;
        let size = desk.publish();
        assert_eq!(code(desk.cosign(lab, first, old.clone()).await), "checkpoint_superseded");
        assert_eq!(code(desk.cosign(lab, size, old).await), "cosignature_invalid", "over the one before");
        assert_eq!(code(desk.cosign(lab, size, "no line".to_owned()).await), "cosignature_invalid");
        let line = desk.line(lab, &lab.witness, 1);
        assert_eq!(code(desk.cosign(lab, size, format!("{line}\n")).await), "cosignature_invalid");
        desk.cosign(lab, size, line.clone()).await.unwrap();
        desk.cosign(lab, size, line).await.unwrap();
        assert_eq!(desk.published.newest().unwrap().note.signatures().len(), 2, "once, however often it is handed in");
    }

    #[tokio::test]
    async fn only_so_many_cosigned_heads_are_remembered() {
        let (witnessed, org) = (Witnessed::default(), OrgId::parse("acme").unwrap());
        let desk = Desk::open().await;
        let _ = desk.publish();
        let head = desk.published.newest().unwrap();
        for size in 1..=100 {
            witnessed.add(Arc::new(Head { size, ..Head::clone(&head) }), &org);
        }
        assert_eq!(witnessed.0.lock().unwrap().len(), WITNESSED_MAX);
        assert_eq!(witnessed.newest(0, &BTreeSet::from([org])).unwrap().size, 100);
    }
}
