//! How an answer has to be handled: its marking and the lab's confidentiality assertion.
//!
//! **Invariant:** what was admitted is read from the proven record and the signed terms, never from what the broker says beside
//! them; what the answer itself was found to carry can only add to it.

use anteroom_proto::rpc::{CallAdmitted, Facts, Marking};
use prost::Message as _;

use crate::{error::VerificationError, verify::dossier::VerifiedDossier};

/// How an answer has to be handled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// The effective marking of the call, raised by what its answer was found to carry.
    pub marking: Marking,
    /// The confidentiality assertion that both sides signed, if there is one.
    pub assertion: Option<String>,
}

impl Label {
    /// Of an admission that was proven.
    pub(super) fn admitted(admission: &CallAdmitted, dossier: &VerifiedDossier) -> Result<Self, VerificationError> {
        let facts = Facts::decode(admission.facts.as_slice()).map_err(|_| VerificationError::Other("facts"))?;
        let marking = facts.marking.ok_or(VerificationError::Missing("marking"))?;
        Ok(Self { marking, assertion: dossier.terms().marking.assertion.clone() })
    }

    /// With the marking that came with the end. One that is lower than what was admitted is a lie.
    pub(super) fn ended(mut self, told: Option<Marking>) -> Result<Self, VerificationError> {
        let Some(told) = told else { return Ok(self) };
        let covers = told.level >= self.marking.level
            && told.rel_to == self.marking.rel_to
            && self.marking.caveats.iter().all(|caveat| told.caveats.contains(caveat));
        if !covers {
            return Err(VerificationError::Other("marking"));
        }
        self.marking = told;
        Ok(self)
    }

    /// As one line for people; `None` where there is nothing to say.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let marked = self.marking.level > 0 || !self.marking.caveats.is_empty() || !self.marking.rel_to.is_empty();
        if !marked && self.assertion.is_none() {
            return None;
        }
        let banner = anteroom_policy::marking::banner(&self.marking);
        Some(self.assertion.as_ref().map_or_else(|| banner.clone(), |assertion| format!("{banner}; {assertion}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(level: u32, caveats: &[&str]) -> Label {
        let caveats = caveats.iter().map(ToString::to_string).collect();
        Label { marking: Marking { level, caveats, rel_to: Vec::new() }, assertion: Some("exempt".to_owned()) }
    }

    #[test]
    fn a_marking_told_at_the_end_may_be_higher_and_never_lower() {
        let told = |level, caveats: &[&str]| Some(label(level, caveats).marking);
        let ended = label(1, &["PROPIN"]).ended(told(1, &["NOFORN", "PROPIN"]));
        assert_eq!(ended.ok().and_then(|label| label.line()).as_deref(), Some("CUI//NOFORN//PROPIN; exempt"));
        assert!(label(1, &["PROPIN"]).ended(told(0, &["PROPIN"])).is_err());
        assert!(label(1, &["PROPIN"]).ended(told(1, &[])).is_err());
    }
}
