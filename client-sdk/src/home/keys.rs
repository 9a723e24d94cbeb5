//! Keys in a party's folder, and the statements by which an organisation comes to be.

use std::path::PathBuf;

use anteroom_proto::{
    names::{Digest, OrgId, Pseudonym},
    rpc::SignedStatement,
    statement::{
        Payload,
        envelope::{self, Signer},
        key::{Algorithm, PublicKey},
        key_set::{self, Enrolment, KeyRole, KeySet, OrgKind, RoleKey, Thresholds},
    },
};

use super::{Home, HomeError, files};
use crate::{
    signer::{KeyFile, SharedSigner},
    system,
};

const KEY_SET_FILE: &str = "key-set.json";
const ENROLMENT_FILE: &str = "enrolment.json";
/// The name of the key that signs calls.
pub(super) const WORKLOAD: &str = "workload";

impl Home {
    /// Makes an organisation: a key for each role that its kind has, version 1 of its key set (one signature is enough), and its
    /// enrolment. Keys that are here already are taken.
    ///
    /// # Errors
    /// The folder is another organisation's or has a key set, or a file cannot be written.
    pub fn init_org(&mut self, org: &OrgId, kind: OrgKind) -> Result<(SignedStatement, SignedStatement), HomeError> {
        self.claim(org)?;
        let path = self.dir.join(KEY_SET_FILE);
        if path.exists() {
            return Err(HomeError::Exists(path));
        }
        let mut keys = Vec::new();
        for role in roles(kind) {
            let signer = self.key_or_new(role.as_str())?;
            keys.push(RoleKey { role: *role, key: signer.public_key().clone() });
        }
        let signer = u8::from(keys.iter().any(|held| held.role == KeyRole::Signer));
        let threshold = Thresholds { root: 1, signer };
        let set = KeySet { org: org.clone(), kind, version: 1, previous: None, threshold, keys };
        let root = self.signer(KeyRole::Root.as_str())?;
        let key_set = envelope::sign_json(&set, &[&root])?;
        KeySet::first(&key_set)?;
        let enrolment = Enrolment {
            org: org.clone(),
            key_set: key_set::fingerprint(&key_set),
            nonce: system::nonce()?,
            roster_nonce: system::nonce()?,
            reads_nonce: system::nonce()?,
        };
        let enrolment = envelope::sign_json(&enrolment, &[&root])?;
        files::replace(&self.dir.join(ENROLMENT_FILE), envelope::to_file(&enrolment)?.as_bytes())?;
        // The key set comes last: a folder that has one has the enrolment, too.
        files::replace(&path, envelope::to_file(&key_set)?.as_bytes())?;
        self.set(|settings| {
            settings.org = Some(org.clone());
            settings.kind = Some(kind);
        })?;
        Ok((key_set, enrolment))
    }

    /// Makes sure that the folder is this organisation's or nobody's.
    pub(super) fn claim(&self, org: &OrgId) -> Result<(), HomeError> {
        match &self.settings.org {
            Some(held) if held != org => Err(HomeError::OtherOrg { held: held.clone(), asked: org.to_string() }),
            Some(_) | None => Ok(()),
        }
    }

    /// The key set and the enrolment, as signed.
    ///
    /// # Errors
    /// There are none, or a file cannot be read.
    pub fn statements_of_org(&self) -> Result<(SignedStatement, SignedStatement), HomeError> {
        let read = |file: &str| {
            let path = self.dir.join(file);
            let text = files::read(&path)?.ok_or(HomeError::NoKeySet)?;
            envelope::from_file(&text).map_err(|why| HomeError::Statement { path, why })
        };
        Ok((read(KEY_SET_FILE)?, read(ENROLMENT_FILE)?))
    }

    /// The key set, read.
    ///
    /// # Errors
    /// There is none, or it does not hold.
    pub fn key_set(&self) -> Result<KeySet, HomeError> {
        let (key_set, _) = self.statements_of_org()?;
        KeySet::first(&key_set).map_err(|why| HomeError::Statement { path: self.dir.join(KEY_SET_FILE), why })
    }

    /// The enrolment, read; `None` if this organisation has none here.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn enrolment(&self) -> Result<Option<Enrolment>, HomeError> {
        match self.statements_of_org() {
            Ok((_, enrolment)) => envelope::read_json(&enrolment)
                .map(Some)
                .map_err(|why| HomeError::Statement { path: self.dir.join(ENROLMENT_FILE), why }),
            Err(HomeError::NoKeySet) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The organisation's own fingerprint, for others to compare and pin.
    ///
    /// # Errors
    /// There is no key set here.
    pub fn fingerprint(&self) -> Result<Digest, HomeError> {
        let (key_set, _) = self.statements_of_org()?;
        Ok(key_set::fingerprint(&key_set))
    }

    /// The signer of this name: a role's, `workload`, or `person-PSEUDONYM`.
    ///
    /// # Errors
    /// There is no such key, or it cannot be used.
    pub fn signer(&self, name: &str) -> Result<SharedSigner, HomeError> {
        let path = self.key_path(name)?;
        if !path.exists() {
            return Err(HomeError::NoKey(name.to_owned()));
        }
        Ok(SharedSigner::new(KeyFile::open(&path)?))
    }

    /// The signer of the first of these names that is here.
    ///
    /// # Errors
    /// None is here, or it cannot be used.
    pub fn first_signer(&self, names: &[&str]) -> Result<SharedSigner, HomeError> {
        for name in names {
            if self.key_path(name)?.exists() {
                return self.signer(name);
            }
        }
        Err(HomeError::NoKey(names.first().copied().unwrap_or_default().to_owned()))
    }

    /// The signer for ends: a stop key, else a signer's.
    ///
    /// # Errors
    /// Neither is here.
    pub fn stop_signer(&self) -> Result<SharedSigner, HomeError> {
        self.first_signer(&[KeyRole::Stop.as_str(), KeyRole::Signer.as_str()])
    }

    /// The signer of a person on the roster.
    ///
    /// # Errors
    /// There is no such key.
    pub fn person_signer(&self, person: &Pseudonym) -> Result<SharedSigner, HomeError> {
        self.signer(&person_key(person))
    }

    /// Makes a key.
    ///
    /// # Errors
    /// The name is no name, a key has it, or it cannot be written.
    pub fn new_key(&self, name: &str, algorithm: Algorithm) -> Result<PublicKey, HomeError> {
        let path = self.key_path(name)?;
        if path.exists() {
            return Err(HomeError::Exists(path));
        }
        files::folder(&self.dir.join("keys"))?;
        if name == KeyRole::Witness.as_str() {
            // Before the key: a key without its memory never cosigns, a memory without its key harms nobody.
            self.make_witness_dir()?;
        }
        Ok(KeyFile::generate(&path, algorithm)?.public_key().clone())
    }

    /// The key of this name, made as Ed25519 if there is none.
    ///
    /// # Errors
    /// It cannot be read or made.
    pub fn key_or_new(&self, name: &str) -> Result<SharedSigner, HomeError> {
        if !self.key_path(name)?.exists() {
            self.new_key(name, Algorithm::Ed25519)?;
        }
        self.signer(name)
    }

    /// Every key with its name.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn keys(&self) -> Result<Vec<(String, PublicKey)>, HomeError> {
        let names = files::names(&self.dir.join("keys"), ".key")?;
        let read = |name: String| {
            let key = self.signer(&name)?.public_key().clone();
            Ok((name, key))
        };
        names.into_iter().map(read).collect()
    }

    /// Signs a payload with the key of a name, and keeps a copy of the statement.
    ///
    /// # Errors
    /// There is no such key, or it cannot sign.
    pub fn sign<P: Payload>(&self, payload: &P, signer: &SharedSigner) -> Result<SignedStatement, HomeError> {
        let statement = envelope::sign_json(payload, &[signer])?;
        self.keep_statement(&statement)?;
        Ok(statement)
    }

    fn key_path(&self, name: &str) -> Result<PathBuf, HomeError> {
        // The grammar of names keeps paths inside the folder.
        let name = Pseudonym::parse(name).map_err(HomeError::KeyName)?;
        Ok(self.dir.join("keys").join(format!("{name}.key")))
    }
}

/// The name of a person's key.
pub(super) fn person_key(person: &Pseudonym) -> String {
    format!("person-{person}")
}

/// The keys that an organisation of a kind has.
const fn roles(kind: OrgKind) -> &'static [KeyRole] {
    match kind {
        OrgKind::Lab => &[KeyRole::Root, KeyRole::Signer, KeyRole::Connector, KeyRole::Stop, KeyRole::Witness],
        OrgKind::Agency | OrgKind::Partner => {
            &[KeyRole::Root, KeyRole::Signer, KeyRole::Roster, KeyRole::Stop, KeyRole::Witness]
        }
        OrgKind::Sponsor => &[KeyRole::Root, KeyRole::Signer, KeyRole::Stop, KeyRole::Witness],
        OrgKind::Oversight => &[KeyRole::Root, KeyRole::Signer, KeyRole::Oversight, KeyRole::Witness],
        OrgKind::Operator => &[KeyRole::Root, KeyRole::Stop],
    }
}
