//! A grant for one drill: an hour, one run, room for its streams and nothing else, and its name says what it is.

use anteroom_policy::rules::baseline_digest;
use anteroom_proto::{
    names::{Digest, GrantId, ModelLine, OrgId, Pseudonym, RunId},
    rpc::{GrantSummary, ListModelsRequest, directory_client::DirectoryClient},
    statement::{
        StatementError,
        acts::RunCredential,
        envelope::Signer as _,
        key_set::KeyRole,
        roster::{Person, Roster},
        terms::{Budget, Party, Terms},
    },
    time::{At, HOUR_MS, Term},
};
use tonic::transport::Channel;

use super::{Drill, DrillError, Stage, ground::BESIDE_TOKENS};
use crate::{
    channel::MESSAGE_BYTES_MAX,
    error::Error,
    home::{Home, Use},
    lab::{RunPlan, TermsTemplate},
    signer::SharedSigner,
    system,
};

/// The run of a grant that a drill makes.
pub const RUN: &str = "drill-withdraw";
/// What its terms say that it implements.
const INSTRUMENT: &str = "drill of a withdrawal: synthetic, made and withdrawn by `anteroom drill withdraw`";
/// How long the offer stands, in milliseconds: the same command accepts it.
const ACCEPT_WITHIN_MS: i64 = 10 * 60_000;
/// Slack towards the broker's clock, in milliseconds.
const SLACK_MS: i64 = 60_000;
/// Calls beside the streams, open ones among them: what is tried again may hold its place until it is settled.
const BESIDE_CALLS: u64 = 256;

/// A grant to be made for one drill. What is left out is found in the folders.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// The lab's line.
    pub line: ModelLine,
    /// The build that a connector serves; the line's newest if left out.
    pub build: Option<Digest>,
    /// The agency's roster; the newest in its folder if left out.
    pub roster: Option<Digest>,
    /// Who lets the workload act; the first on the roster whose key is in the agency's folder if left out.
    pub person: Option<Pseudonym>,
    /// Whose clock counts; as in the newest terms of the line with this agency, else the agency's own.
    pub sponsor: Option<OrgId>,
    /// Lines that both sides state to be unrelated; as in those terms if empty.
    pub unrelated_to: Vec<ModelLine>,
    /// Go on although the drill's first call starts the line's clock.
    pub starts_clock: bool,
}

pub(super) async fn make(drill: &Drill<'_>, wanted: &Synthetic) -> Result<GrantId, DrillError> {
    let (lab, agency) = (drill.lab, drill.agency);
    let channel = lab.channel(Use::Act).await?;
    let grants = lab.grants(&channel).await?;
    let before = newest_terms(lab, &grants, &wanted.line, agency.org()?)?;
    let sponsor = wanted.sponsor.clone().or_else(|| before.as_ref().map(|terms| terms.sponsor.org.clone()));
    let sponsor = sponsor.map_or_else(|| agency.org().cloned(), Ok)?;
    if !wanted.starts_clock && !clock_runs(lab, &grants, wanted, &sponsor, agency.org()?)? {
        return Err(DrillError::StartsClock { line: wanted.line.clone(), agency: agency.org()?.clone() });
    }
    let build = match wanted.build {
        Some(build) => build,
        None => newest_build(&channel, lab.org()?, &wanted.line).await?,
    };
    let (roster, person, signer) = who(agency, wanted)?;
    let now = system::now();
    let run = RunPlan { id: run_id()?, purpose: INSTRUMENT.to_owned(), budget: None };
    let party = |org: &OrgId| Ok::<_, DrillError>(Party { org: org.clone(), key_set: fingerprint(lab, org)? });
    let mut template = TermsTemplate::new(
        party(lab.org()?)?,
        party(agency.org()?)?,
        INSTRUMENT,
        wanted.line.clone(),
        build,
        roster,
        baseline_digest(),
        &[run],
        now,
    )?;
    fill(&mut template.terms, drill, wanted, before.as_ref(), now)?;
    template.terms.sponsor = party(&sponsor)?;
    let bytes = template.bytes()?;
    let grant = template.terms.grant;
    // Kept and named before it is signed: whatever happens next, it can be withdrawn.
    lab.keep_terms(&bytes)?;
    drill.left.makes(grant);
    let offered = lab.lab().await?.offer(bytes, &[lab.signer(KeyRole::Signer.as_str())?]).await?;
    lab.keep_act(&offered.recorded)?;
    (drill.tell)(&Stage::Offered(grant));
    accept(agency, grant).await?;
    credential(agency, grant, person, &signer).await?;
    (drill.tell)(&Stage::InForce(grant));
    Ok(grant)
}

fn fill(
    terms: &mut Terms,
    drill: &Drill<'_>,
    wanted: &Synthetic,
    before: Option<&Terms>,
    now: At,
) -> Result<(), DrillError> {
    let streams = u64::try_from(drill.plan.streams).unwrap_or(u64::MAX);
    let each = drill.plan.max_tokens.saturating_add(BESIDE_TOKENS);
    let calls = streams.saturating_add(BESIDE_CALLS);
    let budget = Budget { calls, tokens: calls.saturating_mul(each), open: calls };
    terms.budget = budget;
    for run in &mut terms.runs {
        run.budget = budget;
    }
    terms.limits.tokens_max = terms.limits.tokens_max.max(each);
    terms.window.accept_by_ms = now.plus_ms(ACCEPT_WITHIN_MS);
    terms.window.term_ms = Term::from_ms(HOUR_MS).map_err(|error| StatementError::Payload(error.to_string()))?;
    terms.model.unrelated_to.clone_from(&wanted.unrelated_to);
    if let Some(before) = before {
        terms.endpoint = before.endpoint;
        if wanted.unrelated_to.is_empty() {
            terms.model.unrelated_to.clone_from(&before.model.unrelated_to);
        }
    }
    Ok(())
}

/// One's own keys are named as they are now; what is pinned of oneself is where others began to follow them.
fn fingerprint(lab: &Home, org: &OrgId) -> Result<Digest, DrillError> {
    Ok(if lab.org()? == org { lab.fingerprint()? } else { lab.fingerprint_of(org)? })
}

/// The newest terms that the lab kept of this line with this agency.
fn newest_terms(
    lab: &Home,
    grants: &[GrantSummary],
    line: &ModelLine,
    agency: &OrgId,
) -> Result<Option<Terms>, DrillError> {
    let of_line = |held: &&GrantSummary| held.line == line.as_str() && held.agency == agency.as_str();
    for held in grants.iter().filter(of_line) {
        if let Some(terms) = kept(lab, held)? {
            return Ok(Some(terms));
        }
    }
    Ok(None)
}

fn kept(lab: &Home, held: &GrantSummary) -> Result<Option<Terms>, DrillError> {
    match GrantId::from_slice(&held.grant) {
        Ok(grant) => Ok(lab.terms(grant)?),
        Err(_) => Ok(None),
    }
}

/// Whether the line's clock with this sponsor has started: a grant on it has a window.
fn clock_runs(
    lab: &Home,
    grants: &[GrantSummary],
    wanted: &Synthetic,
    sponsor: &OrgId,
    agency: &OrgId,
) -> Result<bool, DrillError> {
    for held in grants.iter().filter(|held| held.line == wanted.line.as_str() && held.start_ms > 0) {
        let counts = match kept(lab, held)? {
            Some(terms) => terms.sponsor.org == *sponsor,
            None => held.agency == agency.as_str(),
        };
        if counts {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn newest_build(channel: &Channel, lab: &OrgId, line: &ModelLine) -> Result<Digest, DrillError> {
    let mut client = DirectoryClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let models = client.list_models(ListModelsRequest {}).await.map_err(Error::from)?.into_inner().models;
    let of_line = models.iter().filter(|model| model.lab == lab.as_str() && model.line == line.as_str());
    let newest = of_line.max_by_key(|model| model.registered_ms);
    newest.and_then(|model| Digest::from_slice(&model.manifest_digest).ok()).ok_or_else(|| {
        DrillError::Missing(format!("no build of `{line}` is registered; `anteroom model register` first"))
    })
}

/// The roster, and a person on it whose key is in the agency's folder.
fn who(agency: &Home, wanted: &Synthetic) -> Result<(Digest, Pseudonym, SharedSigner), DrillError> {
    let rosters = agency.rosters()?;
    let chosen = rosters.into_iter().find(|(digest, _)| wanted.roster.is_none_or(|named| named == *digest));
    let Some((digest, roster)) = chosen else {
        return Err(DrillError::Missing(match wanted.roster {
            Some(named) => format!("the agency's folder keeps no roster {named}"),
            None => "the agency's folder keeps no roster; `anteroom roster publish` makes one".to_owned(),
        }));
    };
    let now = system::now();
    let valid =
        |person: &&Person| person.valid_from_ms <= now && now < person.valid_until_ms && now < person.trained_until_ms;
    for person in people(&roster, wanted.person.as_ref()).into_iter().filter(valid) {
        if let Ok(signer) = agency.person_signer(&person.pseudonym)
            && *signer.public_key() == person.key
        {
            return Ok((digest, person.pseudonym.clone(), signer));
        }
    }
    let whom = wanted.person.as_ref().map_or_else(|| "anybody".to_owned(), |person| format!("`{person}`"));
    Err(DrillError::Missing(format!(
        "the agency's folder has no key of {whom} whose engagement and training by roster {digest} cover this moment"
    )))
}

fn people<'r>(roster: &'r Roster, named: Option<&Pseudonym>) -> Vec<&'r Person> {
    roster.people.iter().filter(|person| named.is_none_or(|named| *named == person.pseudonym)).collect()
}

async fn accept(agency: &Home, grant: GrantId) -> Result<(), DrillError> {
    let channel = agency.channel(Use::Act).await?;
    let offer = agency.take_offer(&agency.fetch_dossier(&channel, grant).await?)?;
    let signer = agency.signer(KeyRole::Signer.as_str())?;
    let recorded = agency.agency().await?.accept(&offer, &[signer]).await?;
    Ok(agency.keep_act(&recorded)?)
}

async fn credential(
    agency: &Home,
    grant: GrantId,
    pseudonym: Pseudonym,
    person: &SharedSigner,
) -> Result<(), DrillError> {
    let start = system::now().plus_ms(-SLACK_MS);
    let credential = RunCredential {
        grant,
        run: run_id()?,
        org: agency.org()?.clone(),
        workload: agency.key_or_new("workload")?.public_key().clone(),
        start_ms: start,
        end_ms: start.plus_ms(SLACK_MS).plus_ms(HOUR_MS),
        pseudonym,
    };
    let (_, recorded) = agency.agency().await?.issue_credential(&credential, person).await?;
    Ok(agency.keep_act(&recorded)?)
}

fn run_id() -> Result<RunId, DrillError> {
    Ok(RunId::parse(RUN).map_err(|error| StatementError::Payload(error.to_string()))?)
}
