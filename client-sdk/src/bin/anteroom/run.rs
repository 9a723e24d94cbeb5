//! `anteroom run`: letting a workload act in a run.

use anteroom_proto::{
    names::{Digest, GrantId, Pseudonym, RunId},
    statement::{acts::RunCredential, envelope::Signer},
    time::HOUR_MS,
};
use anteroom_sdk::{home::Use, system};
use clap::Subcommand;

use crate::{
    context::Ctx,
    fail::Fail,
    output::{When, view},
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom run credential GRANT cyber-1 --person p-1
  anteroom run credential GRANT cyber-1 --person p-1 --hours 72

The person's key signs; calls are then signed by the workload's key until the credential ends. Renew by running it again.";

/// Runs.
#[derive(Subcommand)]
pub(crate) enum Run {
    /// Sign a run credential for this folder's workload key
    Credential {
        /// The grant
        grant: GrantId,
        /// The run
        run: RunId,
        /// Who on the roster signs
        #[arg(long, value_name = "PSEUDONYM")]
        person: Pseudonym,
        /// For how long, 1 to 72 hours
        #[arg(long, default_value = "24", value_parser = clap::value_parser!(i64).range(1..=72))]
        hours: i64,
        /// The workload's key in this folder; made if there is none
        #[arg(long, default_value = "workload", value_name = "NAME")]
        workload: String,
    },
}

view! {
    /// A run credential in force.
    Credential {
        /// Digest of its payload, by which calls name it.
        credential: Digest,
        /// The grant.
        grant: GrantId,
        /// The run.
        run: String,
        /// Who signed.
        person: String,
        /// Its end.
        end: When,
        /// Index of its record.
        index: u64,
    }
}

pub(crate) async fn run(ctx: &Ctx, verb: Run) -> Result<(), Fail> {
    let Run::Credential { grant, run, person, hours, workload } = verb;
    let home = ctx.home()?;
    let signer = home.person_signer(&person)?;
    let workload = home.key_or_new(&workload)?;
    let channel = home.channel(Use::Act).await?;
    let dossier = home.take_dossier(&home.fetch_dossier(&channel, grant).await?)?;
    if dossier.terms().run(&run).is_none() {
        let runs: Vec<&str> = dossier.terms().runs.iter().map(|run| run.id.as_str()).collect();
        return Err(Fail::Usage(format!("the terms plan no run `{run}`; they plan {}", runs.join(", "))));
    }
    match dossier.roster().person(&person) {
        Some(rostered) if rostered.key == *signer.public_key() => {}
        Some(_) => return Err(Fail::Usage(format!("`person-{person}` here is not the key that the roster names"))),
        None => return Err(Fail::Usage(format!("the roster that the terms name has no `{person}`"))),
    }
    let start = system::now();
    let credential = RunCredential {
        grant,
        run: run.clone(),
        org: home.org()?.clone(),
        pseudonym: person.clone(),
        workload: workload.public_key().clone(),
        start_ms: start,
        end_ms: start.plus_ms(hours.saturating_mul(HOUR_MS)),
    };
    let (digest, recorded) = home.agency().await?.issue_credential(&credential, &signer).await?;
    home.keep_act(&recorded)?;
    ctx.out.one(&Credential {
        credential: digest,
        grant,
        run: run.to_string(),
        person: person.to_string(),
        end: credential.end_ms.into(),
        index: recorded.record.header().index,
    })
}
