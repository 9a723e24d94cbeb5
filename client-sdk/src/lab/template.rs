//! Terms to start from: narrow defaults, each widened by name.

use anteroom_proto::{
    names::{Digest, ModelLine, RunId, Variant},
    statement::{
        StatementError,
        terms::{
            Budget, CallLimits, Endpoint, Features, MarkingTerms, ModelTerms, Party, PolicyTerms, RunTerms,
            ScannerLocks, Terms, WindowTerms,
        },
    },
    time::{At, Term},
};

use crate::{error::Error, system};

/// How long an offer stands if nothing else is said: 7 days.
const ACCEPT_WITHIN_MS: i64 = 7 * 24 * anteroom_proto::time::HOUR_MS;
/// Longest pause if nothing else is said: 24 hours.
const PAUSE_MS_MAX: u64 = 24 * 3_600_000;

/// A planned use.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// Its name.
    pub id: RunId,
    /// What it is for.
    pub purpose: String,
    /// Its budget; absent means the grant's.
    pub budget: Option<Budget>,
}

/// Terms in the making. What has no default is asked for by [`TermsTemplate::new`]; everything else can be changed in `terms`
/// until [`TermsTemplate::bytes`] holds them against every bound.
#[derive(Clone, Debug)]
pub struct TermsTemplate {
    /// The terms so far.
    pub terms: Terms,
}

impl TermsTemplate {
    /// Terms for `line` with a new grant and nonce: the agency is its own sponsor, the window starts with the first call and is
    /// 720 hours long, the offer stands for 7 days from `now`, a pause lasts 24 hours at most; chat with streaming is granted and
    /// nothing else; 10,000 calls, 10,000,000 tokens, 16 calls at once; no marking; a scanner's lock hits the run.
    ///
    /// # Errors
    /// The machine gives no randomness.
    #[expect(clippy::too_many_arguments, reason = "each is something that only the two sides can know")]
    pub fn new(
        lab: Party,
        agency: Party,
        instrument: &str,
        line: ModelLine,
        build: Digest,
        roster: Digest,
        baseline: Digest,
        runs: &[RunPlan],
        now: At,
    ) -> Result<Self, Error> {
        let budget = Budget { calls: 10_000, tokens: 10_000_000, open: 16 };
        let runs = runs.iter().map(|plan| RunTerms {
            id: plan.id.clone(),
            purpose: plan.purpose.clone(),
            budget: plan.budget.unwrap_or(budget),
            networks: Vec::new(),
            content_profile: "default".to_owned(),
        });
        let standard = Variant::parse("standard").map_err(|error| StatementError::Payload(error.to_string()))?;
        let terms = Terms {
            version: 1,
            grant: system::grant_id()?,
            nonce: system::nonce()?,
            lab,
            sponsor: agency.clone(),
            agency,
            instrument: instrument.to_owned(),
            model: ModelTerms {
                line,
                builds: vec![build],
                variants: vec![standard],
                lowered: Vec::new(),
                unrelated_to: Vec::new(),
            },
            window: WindowTerms {
                start_ms: None,
                term_ms: Term::MAX,
                partner_release_ms: None,
                accept_by_ms: now.plus_ms(ACCEPT_WITHIN_MS),
                pause_ms_max: Some(PAUSE_MS_MAX),
            },
            features: Features { chat: true, streaming: true, n: 1, ..Features::default() },
            roster,
            runs: runs.collect(),
            limits: CallLimits {
                body_bytes_max: 1024 * 1024,
                tokens_max: 131_072,
                default_max_tokens: 4_096,
                image_tokens: 1_024,
                repeats_max: None,
            },
            budget,
            marking: MarkingTerms::default(),
            policy: PolicyTerms { baseline, additions: String::new(), contact: None },
            endpoint: Endpoint::Connector,
            scanner_locks: ScannerLocks::Run,
        };
        Ok(Self { terms })
    }

    /// The bytes that both sides sign.
    ///
    /// # Errors
    /// A value is out of bounds; the error names the field.
    pub fn bytes(&self) -> Result<Vec<u8>, StatementError> {
        let bytes =
            serde_json::to_vec_pretty(&self.terms).map_err(|error| StatementError::Payload(error.to_string()))?;
        Terms::parse(&bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::{names::OrgId, time::TERM_MS_MAX};

    use super::*;

    fn template() -> TermsTemplate {
        let party = |name: &str| Party { org: OrgId::parse(name).unwrap(), key_set: Digest::of(name.as_bytes()) };
        let runs = [RunPlan { id: RunId::parse("cyber").unwrap(), purpose: "cyber".to_owned(), budget: None }];
        TermsTemplate::new(
            party("lab"),
            party("agency"),
            "agreement 1",
            ModelLine::parse("line").unwrap(),
            Digest::of(b"build"),
            Digest::of(b"roster"),
            Digest::of(b"baseline"),
            &runs,
            At::clamped(1_000),
        )
        .unwrap()
    }

    #[test]
    fn the_defaults_are_terms_and_no_two_are_alike() {
        let (one, two) = (template(), template());
        let read = Terms::parse(&one.bytes().unwrap()).unwrap();
        assert_eq!(read, one.terms);
        assert_ne!(one.terms.grant, two.terms.grant);
        assert_ne!(one.terms.nonce, two.terms.nonce);
    }

    #[test]
    fn the_defaults_are_narrow() {
        let terms = template().terms;
        let granted = Features { chat: true, streaming: true, n: 1, ..Features::default() };
        assert_eq!(terms.features, granted);
        assert_eq!(terms.window.term_ms.ms(), TERM_MS_MAX);
        assert_eq!(terms.sponsor, terms.agency);
    }

    #[test]
    fn terms_out_of_bounds_make_no_bytes() {
        let mut template = template();
        template.terms.features.logprobs = 1;
        template.terms.features.logit_bias = true;
        assert!(template.bytes().is_err());
    }
}
