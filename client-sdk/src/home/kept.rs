//! What a party keeps of its own acts and of the grants it is party to.

use std::path::PathBuf;

use anteroom_proto::{
    ledger::scope::Scope,
    names::{Digest, GrantId},
    rpc::{Dossier, SignedStatement},
    statement::{
        Payload,
        acts::{Stop, StopKind},
        envelope,
        roster::{PrivatePerson, Roster},
        terms::Terms,
    },
};
use prost::Message;

use super::{Home, HomeError, files};
use crate::{
    acts::{Recorded, carried},
    store::{ReceiptKeeper, ReceiptStore, StoreError},
    verify::{
        dossier::{VerifiedDossier, VerifiedOffer},
        scope::TagKeys,
    },
};

/// Most processes that keep receipts in one folder at once.
pub const RECEIPT_STORES_MAX: u32 = 64;
/// Folders of builds that were not the first of their line, within the line's.
const BUILDS: &str = "builds";
/// What a connector's folder remembers of the log and of windows.
pub(crate) const SEEN: [&str; 2] = ["log-head", "windows.json"];

/// A stop signed here.
#[derive(Clone, Debug)]
pub struct KeptStop {
    /// What it says.
    pub stop: Stop,
    /// As signed.
    pub statement: SignedStatement,
}

impl Home {
    /// Keeps a copy of a statement signed here, named by its kind and the digest of its payload.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_statement(&self, statement: &SignedStatement) -> Result<(), HomeError> {
        let folder = self.dir.join("statements");
        files::folder(&folder)?;
        let kind = statement.payload_type.trim_start_matches("application/vnd.anteroom.");
        let kind = kind.split('.').next().unwrap_or("statement");
        let kind: String = kind.chars().filter(|c| c.is_ascii_lowercase() || *c == '-').take(40).collect();
        let path = folder.join(format!("{kind}-{}.json", Digest::of(&statement.payload)));
        files::replace(&path, envelope::to_file(statement)?.as_bytes())
    }

    /// Keeps a copy of the statements that a record of an act carries.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_act(&self, recorded: &Recorded) -> Result<(), HomeError> {
        for statement in carried(&recorded.record)? {
            self.keep_statement(&statement)?;
        }
        Ok(())
    }

    /// The stops of a kind that were signed here for a grant, oldest first.
    ///
    /// # Errors
    /// A copy cannot be read.
    pub fn stops(&self, kind: StopKind, grant: GrantId) -> Result<Vec<KeptStop>, HomeError> {
        let folder = self.dir.join("statements");
        let mut found = Vec::new();
        for name in files::names(&folder, ".json")?.into_iter().filter(|name| name.starts_with("stop-")) {
            let path = folder.join(format!("{name}.json"));
            let Some(text) = files::read(&path)? else { continue };
            let statement = envelope::from_file(&text).map_err(|why| HomeError::Statement { path, why })?;
            if statement.payload_type != Stop::TYPE {
                continue;
            }
            let stop: Stop = envelope::read_json(&statement)?;
            if stop.stop == kind && stop.grant == grant {
                found.push((files::changed(&folder.join(&name).with_extension("json"))?, KeptStop { stop, statement }));
            }
        }
        found.sort_by_key(|(changed, _)| *changed);
        Ok(found.into_iter().map(|(_, kept)| kept).collect())
    }

    /// Keeps terms that were verified or made here: without them no record of their grant can be checked.
    ///
    /// # Errors
    /// They are no terms, or cannot be written.
    pub fn keep_terms(&self, bytes: &[u8]) -> Result<Terms, HomeError> {
        let terms = Terms::parse(bytes)?;
        let folder = self.dir.join("terms");
        files::folder(&folder)?;
        let path = folder.join(format!("{}.json", terms.grant));
        if files::read_bytes(&path)?.as_deref() != Some(bytes) {
            files::replace(&path, bytes)?;
        }
        Ok(terms)
    }

    /// The terms kept of a grant; `None` if there are none.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn terms(&self, grant: GrantId) -> Result<Option<Terms>, HomeError> {
        let path = self.dir.join("terms").join(format!("{grant}.json"));
        match files::read_bytes(&path)? {
            Some(bytes) => Terms::parse(&bytes).map(Some).map_err(|why| HomeError::Statement { path, why }),
            None => Ok(None),
        }
    }

    /// The keys of every scope that this party knows the nonce of: its own, and those of the grants whose terms are kept.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn tag_keys(&self) -> Result<TagKeys, HomeError> {
        let mut keys = TagKeys::default();
        if let Some(enrolment) = self.enrolment()? {
            let org = &enrolment.org;
            keys.add(Scope::Organisation(org.clone()), &enrolment.nonce);
            keys.add(Scope::Roster(org.clone()), &enrolment.roster_nonce);
            keys.add(Scope::Reads(org.clone()), &enrolment.reads_nonce);
        }
        for name in files::names(&self.dir.join("terms"), ".json")? {
            if let Ok(grant) = GrantId::parse(&name)
                && let Some(terms) = self.terms(grant)?
            {
                keys.add(Scope::Grant(grant), &terms.nonce);
            }
        }
        Ok(keys)
    }

    /// Verifies an offer under the pinned fingerprints and keeps its terms.
    ///
    /// # Errors
    /// A fingerprint is not pinned, or something does not hold.
    pub fn take_offer(&self, dossier: &Dossier) -> Result<VerifiedOffer, HomeError> {
        let pins = self.pins_for(&Terms::parse(&dossier.terms)?)?;
        let offer = VerifiedOffer::verify(dossier, &pins).map_err(crate::error::Error::from)?;
        self.keep_terms(&dossier.terms)?;
        Ok(offer)
    }

    /// Verifies a dossier under the pinned fingerprints and keeps it, so that receipts can be checked without asking anybody.
    ///
    /// # Errors
    /// A fingerprint is not pinned, or something does not hold.
    pub fn take_dossier(&self, dossier: &Dossier) -> Result<VerifiedDossier, HomeError> {
        let pins = self.pins_for(&Terms::parse(&dossier.terms)?)?;
        let verified = VerifiedDossier::verify(dossier, &pins).map_err(crate::error::Error::from)?;
        self.keep_terms(&dossier.terms)?;
        let folder = self.dir.join("dossiers");
        files::folder(&folder)?;
        files::replace(&folder.join(format!("{}.bin", verified.grant())), &dossier.encode_to_vec())?;
        Ok(verified)
    }

    /// The dossier kept of a grant, verified again under what is pinned; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read or does not hold.
    pub fn kept_dossier(&self, grant: GrantId) -> Result<Option<VerifiedDossier>, HomeError> {
        let path = self.dir.join("dossiers").join(format!("{grant}.bin"));
        let Some(bytes) = files::read_bytes(&path)? else { return Ok(None) };
        let dossier =
            Dossier::decode(bytes.as_slice()).map_err(|error| HomeError::Text { path, why: error.to_string() })?;
        let pins = self.pins_for(&Terms::parse(&dossier.terms)?)?;
        Ok(Some(VerifiedDossier::verify(&dossier, &pins).map_err(crate::error::Error::from)?))
    }

    /// Keeps a roster with what stays with the agency.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_roster(&self, statement: &SignedStatement, private: &[PrivatePerson]) -> Result<(), HomeError> {
        let folder = self.dir.join("rosters");
        files::folder(&folder)?;
        let digest = Digest::of(&statement.payload);
        files::replace(&folder.join(format!("{digest}.json")), envelope::to_file(statement)?.as_bytes())?;
        let path = folder.join(format!("{digest}.private.json"));
        let text = serde_json::to_vec_pretty(private)
            .map_err(|error| HomeError::Text { path: path.clone(), why: error.to_string() })?;
        files::replace(&path, &text)
    }

    /// The rosters kept here, the newest first.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn rosters(&self) -> Result<Vec<(Digest, Roster)>, HomeError> {
        let folder = self.dir.join("rosters");
        let mut found = Vec::new();
        for name in files::names(&folder, ".json")? {
            // What stays with the agency lies beside each.
            let Ok(digest) = Digest::parse(&name) else { continue };
            let path = folder.join(format!("{name}.json"));
            let Some(text) = files::read(&path)? else { continue };
            let changed = files::changed(&path)?;
            let roster = envelope::from_file(&text).and_then(|statement| Roster::parse(&statement));
            found.push((changed, (digest, roster.map_err(|why| HomeError::Statement { path, why })?)));
        }
        found.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
        Ok(found.into_iter().map(|(_, roster)| roster).collect())
    }

    /// A store of receipts to write to. One process at a time has a store open, so each that runs beside another gets one of its
    /// own, next to the first.
    ///
    /// # Errors
    /// It cannot be opened, or [`RECEIPT_STORES_MAX`] processes run already.
    pub fn receipts(&self) -> Result<ReceiptStore, HomeError> {
        let mut last = None;
        for number in 1..=RECEIPT_STORES_MAX {
            match ReceiptStore::open(&self.receipts_dir(number)) {
                Err(StoreError::InUse(path)) => last = Some(StoreError::InUse(path)),
                opened => return Ok(opened?),
            }
        }
        Err(last.unwrap_or(StoreError::Closed).into())
    }

    /// Every store of receipts that no other process has open, and how many are open elsewhere.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn all_receipts(&self) -> Result<(Vec<ReceiptStore>, usize), HomeError> {
        let (mut stores, mut elsewhere) = (Vec::new(), 0);
        for folder in (1..=RECEIPT_STORES_MAX).map(|number| self.receipts_dir(number)) {
            if !folder.is_dir() {
                continue;
            }
            match ReceiptStore::open(&folder) {
                Err(StoreError::InUse(_)) => elsewhere += 1,
                opened => stores.push(opened?),
            }
        }
        Ok((stores, elsewhere))
    }

    fn receipts_dir(&self, number: u32) -> PathBuf {
        let first = self.dir.join("receipts");
        if number == 1 { first } else { first.join(number.to_string()) }
    }

    /// A store of receipts, for many tasks.
    ///
    /// # Errors
    /// They cannot be opened.
    pub fn receipt_keeper(&self) -> Result<ReceiptKeeper, HomeError> {
        Ok(ReceiptKeeper::new(self.receipts()?))
    }

    /// The folder of a lab's connector for one line, made if there is none.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_connector_dir(&self, line: &anteroom_proto::names::ModelLine) -> Result<PathBuf, HomeError> {
        let dir = self.connector_dir(line);
        files::folder(&dir)?;
        Ok(dir)
    }

    /// The folder of a lab's connector for one build of a line, made if there is none: the line's own for the build that was served
    /// first, one within it for each other, so that two can serve side by side. A new one begins with what the line's connectors saw of
    /// the log and of windows: a build joins a running clock.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub fn make_build_dir(
        &self,
        line: &anteroom_proto::names::ModelLine,
        manifest: Digest,
    ) -> Result<PathBuf, HomeError> {
        let of_line = self.make_connector_dir(line)?;
        let (named, own) = (of_line.join("build"), manifest.to_string());
        match files::read(&named)? {
            None => {
                files::replace(&named, own.as_bytes())?;
                return Ok(of_line);
            }
            Some(first) if first.trim() == own => return Ok(of_line),
            Some(_) => {}
        }
        let dir = of_line.join(BUILDS).join(own);
        files::folder(&dir)?;
        for seen in SEEN {
            if files::read_bytes(&dir.join(seen))?.is_none()
                && let Some(bytes) = files::read_bytes(&of_line.join(seen))?
            {
                files::replace(&dir.join(seen), &bytes)?;
            }
        }
        Ok(dir)
    }

    /// The folders of a lab's connectors for one line, whichever build they serve; the line's own first.
    #[must_use]
    pub fn connector_dirs(&self, line: &anteroom_proto::names::ModelLine) -> Vec<PathBuf> {
        let of_line = self.connector_dir(line);
        let builds = std::fs::read_dir(of_line.join(BUILDS)).into_iter().flatten();
        let mut dirs: Vec<PathBuf> = builds.filter_map(|entry| Some(entry.ok()?.path())).collect();
        dirs.sort();
        dirs.insert(0, of_line);
        dirs
    }

    /// The folder of a lab's connector for one line.
    #[must_use]
    pub fn connector_dir(&self, line: &anteroom_proto::names::ModelLine) -> PathBuf {
        self.dir.join("connector").join(line.as_str())
    }
}
