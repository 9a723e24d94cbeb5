//! Dossiers beside the slices: what each mirrored grant rests on, held against the mirrored records.
//!
//! ```text
//! file = "anteroom-dossier/v1 " GRANT " " SHA-256 of the message, hex  LF  the `Dossier` message
//! ```
//!
//! Terms and statements must be those of the records, key sets must lead from what is pinned, the rules' text must be what the terms
//! name. What the broker merely says of a grant's standing is signed by nobody; for that, and against accidents, there is the digest.
//!
//! **Invariant:** a mirror with a dossier is verified only if every byte of it is accounted for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anteroom_policy::rules;
use anteroom_proto::{
    ledger::scope::Scope,
    names::{Digest, GrantId, OrgId},
    rpc::{
        Dossier, GrantAccepted, GrantOffered, KeySetChanged, OrganisationEnrolled, RosterPublished,
        RunCredentialIssued, SignedStatement, SuccessionCountersigned, SuccessionOffered,
    },
    statement::{envelope, key_set, rules::Narrowing, terms::Terms},
};
use prost::Message;

use super::{Mirror, MirrorError, check::Demands, layout::read_bounded};
use crate::{
    channel::MESSAGE_BYTES_MAX,
    verify::{
        dossier::{Pins, VerifiedDossier, VerifiedOffer},
        scope::SliceRecord,
    },
};

/// What a dossier's file begins with.
const WORD: &str = "anteroom-dossier/v1";

/// A dossier that holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldDossier {
    /// The grant.
    pub grant: GrantId,
    /// Whether both organisations' fingerprints are pinned by whoever verifies. If not, the key sets are those that the terms name, and
    /// nobody here compared them.
    pub pinned: bool,
}

impl Mirror {
    /// Keeps a grant's dossier, which must hold by itself.
    ///
    /// # Errors
    /// It does not, or the file cannot be written.
    pub fn keep_dossier(
        &self,
        grant: GrantId,
        dossier: &Dossier,
        pins: &BTreeMap<OrgId, Digest>,
    ) -> Result<(), MirrorError> {
        let path = self.dossier_path(grant);
        let message = dossier.encode_to_vec();
        holds(grant, dossier, pins).map_err(|why| damaged(&path, 0, why))?;
        let mut file = head(grant, &message);
        file.extend(message);
        self.replace_dossier(&path, &file)
    }

    /// A grant's dossier as it is kept here; whether it holds is for [`super::check::verify`] to say.
    ///
    /// # Errors
    /// There is none, or its file holds none.
    pub fn dossier(&self, grant: GrantId) -> Result<Dossier, MirrorError> {
        Kept::read(self.dossier_path(grant), grant, &BTreeMap::new()).map(|kept| kept.dossier)
    }
}

/// The first line.
fn head(grant: GrantId, message: &[u8]) -> Vec<u8> {
    format!("{WORD} {grant} {}\n", Digest::of(message)).into_bytes()
}

fn damaged(path: &Path, at: usize, why: impl Into<String>) -> MirrorError {
    MirrorError::Damaged { path: path.to_owned(), at: at as u64, index: None, why: why.into() }
}

/// Verifies a dossier by itself; whether all fingerprints it rests on are pinned.
fn holds(grant: GrantId, dossier: &Dossier, pinned: &BTreeMap<OrgId, Digest>) -> Result<bool, String> {
    let terms = Terms::parse(&dossier.terms).map_err(|why| format!("the terms do not hold: {why}"))?;
    if terms.grant != grant {
        return Err(format!("it is the dossier of {}", terms.grant));
    }
    let (lab, agency) = (pinned.get(&terms.lab.org), pinned.get(&terms.agency.org));
    let pins = Pins {
        lab: anchor(&dossier.lab_key_sets, lab, terms.lab.key_set),
        agency: anchor(&dossier.agency_key_sets, agency, terms.agency.key_set),
    };
    let verified = match &dossier.acceptance {
        Some(_) => VerifiedDossier::verify(dossier, &pins).map(|_| ()),
        None => VerifiedOffer::verify(dossier, &pins).map(|_| ()),
    };
    verified.map_err(|why| why.to_string())?;
    policy_holds(dossier, &terms)?;
    if let Some(summary) = &dossier.summary
        && (summary.grant != grant.as_bytes()
            || summary.terms_digest != Digest::of(&dossier.terms).as_bytes()
            || summary.terms != dossier.terms)
    {
        return Err("its summary is of other terms".to_owned());
    }
    Ok(lab.is_some() && agency.is_some())
}

/// Where to begin following key sets: at the pinned version, or at the named one where the pinned one is younger; what follows the
/// named one is followed to the end, so the younger is met.
fn anchor(sets: &[SignedStatement], pinned: Option<&Digest>, named: Digest) -> Digest {
    let position = |fingerprint: &Digest| sets.iter().position(|set| key_set::fingerprint(set) == *fingerprint);
    match pinned {
        None => named,
        Some(pinned) => match (position(pinned), position(&named)) {
            (Some(at), Some(of_named)) if at >= of_named => named,
            (Some(_) | None, Some(_) | None) => *pinned,
        },
    }
}

/// The text must begin with the baseline that the terms name, and go on with the terms' own additions and the rules that were added
/// since. The text of a baseline that is not the one at hand can only be compared to the digest in the first line.
fn policy_holds(dossier: &Dossier, terms: &Terms) -> Result<(), String> {
    let text = &dossier.policy;
    if text.is_empty() {
        return Ok(());
    }
    let mut parts = vec![terms.policy.additions.clone()];
    for statement in &dossier.added_rules {
        let added: Narrowing = envelope::read_json(statement).map_err(|why| why.to_string())?;
        parts.push(added.rules);
    }
    let mut baseline = Some(text.as_str());
    for part in parts.iter().rev().filter(|part| !part.is_empty()) {
        baseline = baseline.and_then(|text| text.strip_suffix(part.as_str())?.strip_suffix('\n'));
    }
    let Some(baseline) = baseline else {
        return Err("the rules' text does not end with the terms' additions and the rules added since".to_owned());
    };
    if terms.policy.baseline == rules::baseline_digest() && baseline != rules::BASELINE {
        return Err("the rules' text is not the baseline that the terms name".to_owned());
    }
    Ok(())
}

/// A dossier as it stands on disk.
struct Kept {
    grant: GrantId,
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where the message begins.
    start: usize,
    dossier: Dossier,
    /// Whether all that it rests on is pinned, or what is wrong with it.
    held: Result<bool, String>,
    offered: bool,
}

impl Kept {
    fn read(path: PathBuf, grant: GrantId, pins: &BTreeMap<OrgId, Digest>) -> Result<Self, MirrorError> {
        let bytes = read_bounded(&path, MESSAGE_BYTES_MAX as u64 + 256)?;
        let shown = format!("{WORD} {grant} ");
        let line = bytes.iter().position(|byte| *byte == b'\n').filter(|_| bytes.starts_with(shown.as_bytes()));
        let start = line.ok_or_else(|| damaged(&path, 0, "not the first line of this grant's dossier"))? + 1;
        let message = bytes.get(start..).unwrap_or_default();
        let dossier = Dossier::decode(message).map_err(|_| damaged(&path, start, "the bytes of no dossier"))?;
        let canonical = dossier.encode_to_vec();
        if canonical != message {
            let at = canonical.iter().zip(message).take_while(|(one, other)| one == other).count();
            return Err(damaged(&path, start + at, "not the encoding of what it says"));
        }
        let mut held = holds(grant, &dossier, pins);
        if held.is_ok() && bytes.get(..start) != Some(head(grant, message).as_slice()) {
            held = Err("its bytes are not those that its first line names".to_owned());
        }
        Ok(Self { grant, path, start, dossier, held, bytes, offered: false })
    }

    /// Demands that a part of it is what a record has.
    fn same(&self, what: &str, ours: &[u8], recorded: &[u8]) -> Result<(), MirrorError> {
        if ours == recorded {
            return Ok(());
        }
        let message = self.bytes.get(self.start..).unwrap_or_default();
        let stands = if ours.is_empty() { None } else { message.windows(ours.len()).position(|part| part == ours) };
        let differs = ours.iter().zip(recorded).take_while(|(one, other)| one == other).count();
        let at = stands.map_or(self.start, |stands| self.start + stands + differs);
        Err(damaged(&self.path, at, format!("the {what} are not those on record")))
    }

    fn same_statement(
        &self,
        what: &str,
        ours: &SignedStatement,
        recorded: &SignedStatement,
    ) -> Result<(), MirrorError> {
        self.same(&format!("bytes of the {what}"), &ours.payload, &recorded.payload)?;
        for (one, other) in ours.signatures.iter().zip(&recorded.signatures) {
            self.same(&format!("signatures of the {what}"), &one.signature, &other.signature)?;
        }
        self.same(&format!("signatures of the {what}"), &ours.encode_to_vec(), &recorded.encode_to_vec())
    }

    /// A statement on record, and in the dossier if it is one of those there.
    fn met(&self, statement: &SignedStatement) -> Result<(), MirrorError> {
        let dossier = &self.dossier;
        let all = dossier.lab_key_sets.iter().chain(&dossier.agency_key_sets).chain(&dossier.roster);
        let taken = dossier.successions.iter().flat_map(|taken| taken.succession.iter().chain(&taken.countersignature));
        let all = all.chain(&dossier.credentials).chain(taken).chain(&dossier.offered_succession);
        for own in all.filter(|own| own.payload == statement.payload) {
            self.same_statement("statement", own, statement)?;
        }
        Ok(())
    }
}

/// The dossiers of the grants that are verified.
pub(super) struct Dossiers(Vec<Kept>);

impl Dossiers {
    /// Reads those of `scopes` that are there.
    pub(super) fn open(mirror: &Mirror, scopes: &[Scope], demands: &Demands) -> Result<Self, MirrorError> {
        let mut kept = Vec::new();
        for scope in scopes {
            let Scope::Grant(grant) = scope else { continue };
            match Kept::read(mirror.dossier_path(*grant), *grant, &demands.pins) {
                Err(MirrorError::Missing(_)) => {}
                other => kept.push(other?),
            }
        }
        Ok(Self(kept))
    }

    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Holds what a mirrored record says against them.
    pub(super) fn take(&mut self, recorded: &Recorded) -> Result<(), MirrorError> {
        match recorded {
            Recorded::Offered(scope, offered) => {
                let Some(kept) = self.of(scope) else { return Ok(()) };
                kept.same("terms", &kept.dossier.terms, &offered.terms)?;
                let (own, recorded) = (kept.dossier.offer.as_ref(), offered.offer.as_ref());
                let none = SignedStatement::default();
                kept.same_statement("offer", own.unwrap_or(&none), recorded.unwrap_or(&none))?;
                kept.offered = true;
            }
            Recorded::Accepted(scope, accepted) => {
                let Some(kept) = self.of(scope) else { return Ok(()) };
                // One from before the acceptance has none.
                if let Some(own) = &kept.dossier.acceptance {
                    kept.same_statement("acceptance", own, accepted)?;
                }
            }
            Recorded::Stated(statement) => self.0.iter().try_for_each(|kept| kept.met(statement))?,
        }
        Ok(())
    }

    /// What they were shown to be, once every record went by. `records` says how many there were of a grant.
    pub(super) fn finish(self, records: impl Fn(GrantId) -> u64) -> Result<Vec<HeldDossier>, MirrorError> {
        let mut out = Vec::new();
        for kept in self.0 {
            let pinned = kept.held.map_err(|why| damaged(&kept.path, kept.start, why))?;
            if !kept.offered && records(kept.grant) > 0 {
                return Err(damaged(&kept.path, kept.start, "no mirrored record offers its terms"));
            }
            out.push(HeldDossier { grant: kept.grant, pinned });
        }
        Ok(out)
    }

    fn of(&mut self, scope: &Scope) -> Option<&mut Kept> {
        self.0.iter_mut().find(|kept| *scope == Scope::Grant(kept.grant))
    }
}

/// What a mirrored record says that a dossier must say, too.
#[derive(Clone, Debug)]
pub(super) enum Recorded {
    Offered(Scope, Box<GrantOffered>),
    Accepted(Scope, SignedStatement),
    Stated(SignedStatement),
}

impl Recorded {
    /// `None` if a record says nothing of the kind. A field that is closed to this reader reads as absent.
    pub(super) fn of(record: &SliceRecord) -> Result<Option<Self>, MirrorError> {
        let scope = || record.record.scope().clone();
        let statement = match record.record.opened().spec().name {
            "GrantOffered" => return Ok(Some(Self::Offered(scope(), Box::new(event(record)?)))),
            "GrantAccepted" => {
                let accepted = event::<GrantAccepted>(record)?.acceptance.unwrap_or_default();
                return Ok(Some(Self::Accepted(scope(), accepted)));
            }
            "RunCredentialIssued" => event::<RunCredentialIssued>(record)?.statement,
            "SuccessionOffered" => event::<SuccessionOffered>(record)?.statement,
            "SuccessionCountersigned" => event::<SuccessionCountersigned>(record)?.statement,
            "RosterPublished" => event::<RosterPublished>(record)?.statement,
            "OrganisationEnrolled" => event::<OrganisationEnrolled>(record)?.key_set,
            "KeySetChanged" => event::<KeySetChanged>(record)?.key_set,
            _ => None,
        };
        Ok(statement.map(Self::Stated))
    }
}

/// Reads a proven record's event.
pub(super) fn event<E: Message + Default>(record: &SliceRecord) -> Result<E, MirrorError> {
    let index = record.record.header().index;
    match record.event::<E>() {
        Ok(read) => Ok(read.into_parts().0),
        Err(why) => Err(MirrorError::Unread { index, why: why.to_string() }),
    }
}
