//! Terms: what a lab lends, to whom, for what, and within which bounds. Both sides sign the same bytes.
//!
//! **Invariant:** a value of [`Terms`] is within every bound named here. Nothing in terms is implied: a feature that is not
//! named is not granted.

use serde::{Deserialize, Serialize};

use super::{StatementError, key_set::KeyRole};
use crate::{
    names::{Digest, GrantId, ModelLine, OrgId, RunId, Variant},
    time::{At, Term},
};

/// Most runs in one grant.
pub const RUNS_MAX: usize = 64;
/// Largest body of a call in bytes that terms can name.
pub const CALL_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Largest marking level that this version can carry: 1, CUI.
pub const LEVEL_MAX: u32 = 1;
/// Longest confidentiality assertion in bytes.
pub const ASSERTION_BYTES_MAX: usize = 1024;
/// Kinds of tools that reach the internet from where the model runs.
pub const INTERNET_TOOLS: [&str; 6] =
    ["web_search", "web_search_preview", "web_fetch", "browser", "computer_use", "mcp"];

/// The terms of a grant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// 1.
    pub version: u32,
    /// The grant, named at random by the lab.
    pub grant: GrantId,
    /// 32 random bytes from which the grant's tag key derives.
    pub nonce: Digest,
    /// The lending side.
    pub lab: Party,
    /// The using side.
    pub agency: Party,
    /// The government whose agencies share the clock; an agency alone is its own sponsor.
    pub sponsor: Party,
    /// The legal instrument that these terms implement.
    pub instrument: String,
    /// What is lent.
    pub model: ModelTerms,
    /// For how long.
    pub window: WindowTerms,
    /// What the model may be asked for, one by one.
    pub features: Features,
    /// Digest of the agency's roster.
    pub roster: Digest,
    /// Planned uses.
    pub runs: Vec<RunTerms>,
    /// Bounds on each call.
    pub limits: CallLimits,
    /// Budget of the whole grant.
    pub budget: Budget,
    /// Confidentiality floor of everything under the grant.
    pub marking: MarkingTerms,
    /// The rules.
    pub policy: PolicyTerms,
    /// How the model is reached.
    pub endpoint: Endpoint,
    /// What a scanner's lock hits.
    pub scanner_locks: ScannerLocks,
}

/// A side, named and pinned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// The organisation.
    pub org: OrgId,
    /// Its key set's fingerprint, compared out of band.
    pub key_set: Digest,
}

/// What is lent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTerms {
    /// The model line; the clock belongs to it.
    pub line: ModelLine,
    /// Digests of the manifests of the builds that may answer.
    pub builds: Vec<Digest>,
    /// Variants that may answer.
    pub variants: Vec<Variant>,
    /// Those of them whose safeguards the lab lowered, on the lab's word. Lending one takes two people of the lab.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered: Vec<Variant>,
    /// The lab's other lines that both sides state to be unrelated to this one. Every line of the lab whose clock with this
    /// sponsor has started must stand here, so that a new name for an old model cannot start a new clock unseen.
    #[serde(default)]
    pub unrelated_to: Vec<ModelLine>,
}

/// For how long.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowTerms {
    /// Scheduled start; absent means the first admitted call.
    pub start_ms: Option<At>,
    /// Length in milliseconds, at most 720 hours.
    pub term_ms: Term,
    /// The planned release to partners, at which the window ends if it comes first.
    pub partner_release_ms: Option<At>,
    /// The offer lapses here unless accepted.
    pub accept_by_ms: At,
    /// Longest pause in milliseconds, after which a pause ends by itself; absent means no bound.
    pub pause_ms_max: Option<u64>,
}

/// What the model may be asked for. False, zero or empty means not granted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Features {
    /// Chat completions.
    pub chat: bool,
    /// Plain completions.
    pub completions: bool,
    /// Embeddings.
    pub embeddings: bool,
    /// The responses route.
    pub responses: bool,
    /// The messages route. Left out where it is not granted, so that terms of before it keep their bytes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub messages: bool,
    /// Streamed answers.
    pub streaming: bool,
    /// Tool kinds, for example `function`.
    pub tools: Vec<String>,
    /// Images per call.
    pub images: u32,
    /// Log-probabilities per token, counting the chosen one.
    pub logprobs: u32,
    /// Logit bias; never together with log-probabilities.
    pub logit_bias: bool,
    /// Answers per call; 0 means 1.
    pub n: u32,
    /// A seed.
    pub seed: bool,
    /// Continuing an assistant's message.
    pub prefill: bool,
    /// Raw reasoning.
    pub reasoning: bool,
    /// Structured output.
    pub response_format: bool,
    /// Body fields that the broker does not know and that may pass.
    pub named_fields: Vec<String>,
}

/// One planned use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunTerms {
    /// Its name.
    pub id: RunId,
    /// What it is for.
    pub purpose: String,
    /// Its own budget, inside the grant's.
    pub budget: Budget,
    /// Networks that its calls may come from; empty means any.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Content profile, for example `default` or `cyber-range`.
    pub content_profile: String,
}

/// What may be spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Calls.
    pub calls: u64,
    /// Prompt and answer tokens.
    pub tokens: u64,
    /// Calls open at once.
    pub open: u64,
}

/// Bounds on each call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallLimits {
    /// Body bytes.
    pub body_bytes_max: u64,
    /// Prompt and answer tokens.
    pub tokens_max: u64,
    /// Output tokens where a body names none.
    pub default_max_tokens: u64,
    /// Tokens that an image counts for.
    pub image_tokens: u64,
    /// How often the same texts may be asked within 24 hours, whatever their sampling settings; absent means no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats_max: Option<u32>,
}

/// A confidentiality marking as signed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkingTerms {
    /// 0 unclassified, 1 CUI.
    pub level: u32,
    /// Caveats such as `PROPIN` and `NOFORN`.
    #[serde(default)]
    pub caveats: Vec<String>,
    /// REL TO list; empty means no such restriction.
    #[serde(default)]
    pub rel_to: Vec<String>,
    /// What the lab asserts about the confidentiality of every answer, such as an exemption from disclosure. It travels with each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<String>,
}

/// The rules as signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTerms {
    /// Digest of the baseline's rules, schema and engine version.
    pub baseline: Digest,
    /// What the lab adds: rules that only forbid.
    #[serde(default)]
    pub additions: String,
    /// Whom an evaluator asks about a refusal by the rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
}

/// How the model is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// The lab's connector dials out and checks every call offline.
    Connector,
    /// The operator asks the lab's HTTPS endpoint with a credential that the lab entrusted to it. Nothing on the lab's side checks a
    /// call before the model sees it, and what is said of the answer is the operator's word.
    Direct,
}

impl Endpoint {
    /// Whose key signs outcomes and clocks.
    #[must_use]
    pub const fn signer(self) -> KeyRole {
        match self {
            Self::Connector => KeyRole::Connector,
            Self::Direct => KeyRole::Direct,
        }
    }

    /// Its name in terms.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connector => "connector",
            Self::Direct => "direct",
        }
    }

    /// Whose word stands behind an answer.
    #[must_use]
    pub const fn asserted_by(self) -> &'static str {
        match self {
            Self::Connector => "lab-asserted",
            Self::Direct => "operator-asserted",
        }
    }
}

/// What a scanner's lock hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScannerLocks {
    /// The run.
    Run,
    /// The person.
    Person,
    /// The whole grant.
    Grant,
}

impl Terms {
    /// Reads terms from their bytes and holds them against every bound.
    ///
    /// # Errors
    /// They cannot be read, or a value is out of bounds; the error names the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        let terms: Self = super::parse_json(bytes)?;
        terms.check()?;
        Ok(terms)
    }

    /// The run of this name.
    #[must_use]
    pub fn run(&self, id: &RunId) -> Option<&RunTerms> {
        self.runs.iter().find(|run| run.id == *id)
    }

    /// Whether the lab's side has to sign with two people: a variant with lowered safeguards, or a tool that reaches the internet.
    #[must_use]
    pub fn takes_two_people(&self) -> bool {
        let reaches = |tool: &String| INTERNET_TOOLS.contains(&tool.as_str());
        !self.model.lowered.is_empty() || self.features.tools.iter().any(reaches)
    }

    fn check(&self) -> Result<(), StatementError> {
        let fail = |field, why| Err(StatementError::Field { field, why });
        if self.version != 1 {
            return fail("version", "it is 1");
        }
        self.check_texts()?;
        if self.lab.org == self.agency.org || self.lab.key_set == self.agency.key_set {
            return fail("agency", "lab and agency are two organisations with two key sets");
        }
        if self.sponsor.org == self.lab.org {
            return fail("sponsor", "a lab is not its own sponsor");
        }
        if self.model.builds.is_empty() || self.model.builds.len() > 16 {
            return fail("model.builds", "1 to 16 digests are expected");
        }
        if self.model.variants.is_empty() || self.model.variants.len() > 16 {
            return fail("model.variants", "1 to 16 names are expected");
        }
        if self.instrument.is_empty() || self.instrument.len() > 4096 {
            return fail("instrument", "1 to 4096 bytes are expected");
        }
        if self.runs.is_empty() || self.runs.len() > RUNS_MAX {
            return fail("runs", "1 to 64 runs are expected");
        }
        let mut ids: Vec<&RunId> = self.runs.iter().map(|run| &run.id).collect();
        ids.sort();
        ids.dedup();
        if ids.len() != self.runs.len() {
            return fail("runs", "two runs have one name");
        }
        let budgets = self.runs.iter().map(|run| run.budget).chain([self.budget]);
        for budget in budgets {
            if budget.calls == 0 || budget.tokens == 0 || budget.open == 0 || budget.open > 10_000 {
                return fail("budget", "calls, tokens and open are at least 1, open at most 10000");
            }
        }
        if self.limits.body_bytes_max == 0 || self.limits.body_bytes_max > CALL_BYTES_MAX {
            return fail("limits.body_bytes_max", "1 byte to 8 MiB are expected");
        }
        if self.limits.tokens_max == 0 || self.limits.default_max_tokens == 0 {
            return fail("limits", "token bounds are at least 1");
        }
        if self.limits.tokens_max > 16_777_216 || self.limits.default_max_tokens > self.limits.tokens_max {
            return fail("limits", "default_max_tokens is at most tokens_max, which is at most 16777216");
        }
        if self.marking.level > LEVEL_MAX {
            return fail("marking.level", "nothing above CUI passes in this version");
        }
        if self.features.logit_bias && self.features.logprobs > 0 {
            return fail("features", "logit_bias and logprobs are never granted together");
        }
        if self.features.n > 16 || self.features.logprobs > 21 || self.features.images > 64 {
            return fail("features", "n is at most 16, logprobs 21, images 64");
        }
        if self.policy.additions.len() > 32 * 1024 {
            return fail("policy.additions", "at most 32 KiB are expected");
        }
        Ok(())
    }

    /// Texts that stand in facts, headers and errors: plain, so that none can pass for another.
    fn check_texts(&self) -> Result<(), StatementError> {
        let fail = |field, why| Err(StatementError::Field { field, why });
        let plain = |text: &String, most: usize| {
            let characters = text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
            !text.is_empty() && text.len() <= most && characters && text.trim() == text
        };
        let texts = self.marking.caveats.iter().chain(&self.marking.rel_to).chain(&self.features.tools);
        let texts = texts.chain(&self.features.named_fields).chain(self.runs.iter().flat_map(|run| &run.networks));
        let mut texts = texts.chain(self.runs.iter().flat_map(|run| [&run.purpose, &run.content_profile]));
        if !texts.all(|text| plain(text, 128)) {
            return fail(
                "names and purposes",
                "1 to 128 printable ASCII characters without blanks at either end are expected",
            );
        }
        if !self.marking.assertion.iter().all(|text| plain(text, ASSERTION_BYTES_MAX)) {
            return fail("marking.assertion", "1 to 1024 printable ASCII characters in one line are expected");
        }
        if !self.policy.contact.iter().all(|text| plain(text, 128)) {
            return fail("policy.contact", "1 to 128 printable ASCII characters in one line are expected");
        }
        if self.model.lowered.iter().any(|variant| !self.model.variants.contains(variant)) {
            return fail("model.lowered", "each stands in `model.variants`, too");
        }
        if self.limits.repeats_max == Some(0) {
            return fail("limits.repeats_max", "at least 1 is expected");
        }
        Ok(())
    }
}
