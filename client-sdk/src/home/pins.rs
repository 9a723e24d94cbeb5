//! What was compared out of band: the log's key, and other organisations' fingerprints.

use std::{collections::BTreeMap, sync::Arc};

use anteroom_proto::{
    ledger::{
        checkpoint::{LogTrust, VerifiedCheckpoint},
        note::VerifierKey,
    },
    names::{Digest, OrgId},
    statement::terms::Terms,
};
use serde::{Deserialize, Serialize};

use super::{Home, HomeError, files, session::Use};
use crate::{
    error::VerificationError,
    following,
    log::{LogError, LogView},
    verify::dossier::Pins,
};

const FILE: &str = "pins.toml";

/// What `pins.toml` says.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinFile {
    /// The log's verifier key, `name+id+base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Fingerprints of key sets.
    #[serde(default)]
    pub orgs: BTreeMap<OrgId, Digest>,
}

impl Home {
    /// Everything pinned.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn pins(&self) -> Result<PinFile, HomeError> {
        let path = self.dir.join(FILE);
        match files::read(&path)? {
            Some(text) => toml::from_str(&text).map_err(|error| HomeError::Text { path, why: error.to_string() }),
            None => Ok(PinFile::default()),
        }
    }

    /// Pins the log's key. Another one that is pinned already stays unless `replace`; the checkpoint seen under it goes with it.
    ///
    /// # Errors
    /// It is no key, another is pinned, or the file cannot be written.
    pub fn pin_log(&self, vkey: &str, replace: bool) -> Result<(), HomeError> {
        let key: VerifierKey = vkey.parse()?;
        LogTrust::log_only(key.clone())?;
        let vkey = key.to_string();
        let mut pins = self.pins()?;
        if pins.log.as_ref() == Some(&vkey) {
            return Ok(());
        }
        if pins.log.is_some() && !replace {
            return Err(HomeError::Pinned("the log's key".to_owned()));
        }
        // Another key of the same log, of which everything that was seen still counts.
        let follows = || self.log_trust().is_ok_and(|trust| trust.knows(&key));
        if pins.log.is_some() && !follows() {
            for path in [self.checkpoint_path(), self.dir.join(following::FILE)] {
                match std::fs::remove_file(&path) {
                    Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(HomeError::Io { path, why }),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        pins.log = Some(vkey);
        self.write_pins(&pins)
    }

    /// Pins an organisation's fingerprint. Another one that is pinned already stays unless `replace`.
    ///
    /// # Errors
    /// Another is pinned, or the file cannot be written.
    pub fn pin_org(&self, org: &OrgId, fingerprint: Digest, replace: bool) -> Result<(), HomeError> {
        let mut pins = self.pins()?;
        match pins.orgs.get(org) {
            Some(held) if *held == fingerprint => return Ok(()),
            Some(_) if !replace => return Err(HomeError::Pinned(org.to_string())),
            Some(_) | None => {}
        }
        pins.orgs.insert(org.clone(), fingerprint);
        self.write_pins(&pins)
    }

    /// The fingerprint of an organisation: its own from its key set, anybody else's as pinned.
    ///
    /// # Errors
    /// It is not pinned.
    pub fn fingerprint_of(&self, org: &OrgId) -> Result<Digest, HomeError> {
        if let Some(pinned) = self.pins()?.orgs.get(org) {
            return Ok(*pinned);
        }
        if self.settings.org.as_ref() == Some(org) {
            return self.fingerprint();
        }
        Err(HomeError::NoPin(org.clone()))
    }

    /// Every fingerprint that is known here: those pinned, and the organisation's own if its key set is here.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn fingerprints(&self) -> Result<BTreeMap<OrgId, Digest>, HomeError> {
        let mut known = self.pins()?.orgs;
        if let (Some(own), Ok(fingerprint)) = (&self.settings.org, self.fingerprint()) {
            known.entry(own.clone()).or_insert(fingerprint);
        }
        Ok(known)
    }

    /// The fingerprints under which these terms are verified.
    ///
    /// # Errors
    /// One is not pinned.
    pub fn pins_for(&self, terms: &Terms) -> Result<Pins, HomeError> {
        Ok(Pins { lab: self.fingerprint_of(&terms.lab.org)?, agency: self.fingerprint_of(&terms.agency.org)? })
    }

    /// Whom checkpoints must be signed by: the log's key as it is pinned, and those that are known to have come before and after it.
    ///
    /// # Errors
    /// No log key is pinned, or what is known of the log's keys cannot be read.
    pub fn log_trust(&self) -> Result<LogTrust, HomeError> {
        let vkey: VerifierKey = self.pins()?.log.ok_or(HomeError::NoLogKey)?.parse()?;
        let trust = LogTrust::log_only(vkey)?;
        following::recall(&self.dir, &trust)?;
        Ok(trust)
    }

    /// Whether this is the log's key, after the broker was asked how that handed over if it is not the pinned one.
    ///
    /// # Errors
    /// No log key is pinned, or the broker cannot be asked.
    pub async fn knows_log_key(&self, vkey: &str) -> Result<bool, HomeError> {
        let (trust, key) = (self.log_trust()?, vkey.parse::<VerifierKey>()?);
        if trust.knows(&key) {
            return Ok(true);
        }
        let channel = match self.channel(Use::Act).await {
            Err(HomeError::NoCertificate(_)) => self.channel(Use::Serve).await?,
            other => other?,
        };
        let log = self.log_on(&channel).await?;
        Ok(log.trust().knows(&key))
    }

    /// The log as this side saw it.
    ///
    /// # Errors
    /// No log key is pinned, or the checkpoint kept is not one to believe.
    pub fn log_view(&self) -> Result<Arc<LogView>, HomeError> {
        Ok(Arc::new(LogView::open(self.log_trust()?, &self.checkpoint_path())?))
    }

    /// The newest checkpoint of the log that this side verified, with the log's signature; `None` if it saw none yet.
    ///
    /// # Errors
    /// No log key is pinned, or the checkpoint kept is not one to believe.
    pub fn seen_checkpoint(&self) -> Result<Option<VerifiedCheckpoint>, HomeError> {
        let log = self.log_trust()?;
        match files::read_bytes(&self.checkpoint_path())? {
            Some(bytes) => {
                let checkpoint = log.open(&bytes).map_err(LogError::from).map_err(VerificationError::from)?;
                Ok(Some(checkpoint))
            }
            None => Ok(None),
        }
    }

    fn checkpoint_path(&self) -> std::path::PathBuf {
        self.dir.join("checkpoint")
    }

    fn write_pins(&self, pins: &PinFile) -> Result<(), HomeError> {
        let path = self.dir.join(FILE);
        let text = toml::to_string_pretty(pins)
            .map_err(|error| HomeError::Text { path: path.clone(), why: error.to_string() })?;
        files::replace(&path, text.as_bytes())
    }
}
