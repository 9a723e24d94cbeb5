//! Fetching what shows that both parties' witnesses vouch for a receipt.

use anteroom_proto::{
    ledger::checkpoint::LogTrust,
    names::OrgId,
    rpc::{GetPublishedReply, GetPublishedRequest, Receipt, audit_client::AuditClient},
};
use tonic::transport::Channel;

use crate::{
    error::Error,
    log::Point,
    store::{KeptProof, KeptWitness},
    verify::{
        dossier::VerifiedDossier,
        witnessed::{WitnessFault, Witnessed, points, verify_witnessed},
    },
};

/// How often the broker is asked while other checkpoints are published in between.
const ROUNDS_MAX: usize = 4;

/// Asks the broker for evidence and verifies it; `None` while both parties' witnesses have not cosigned one checkpoint that is
/// large enough.
///
/// # Errors
/// The broker refuses or cannot be reached, or what it shows does not hold.
pub async fn fetch_witnessed(
    audit: &AuditClient<Channel>,
    receipt: &Receipt,
    dossier: &VerifiedDossier,
    trust: &LogTrust,
) -> Result<Option<(KeptWitness, Witnessed)>, Error> {
    let mut points = points(receipt, trust)?;
    points.sort_by_key(|point| std::cmp::Reverse(point.size));
    let parties = [&dossier.terms().lab.org, &dossier.terms().agency.org];
    for _ in 0..ROUNDS_MAX {
        let mut kept: Option<KeptWitness> = None;
        let mut same = true;
        for point in &points {
            let reply = ask(audit, point.size, parties).await?;
            if reply.witnessed.is_empty() {
                return Ok(None);
            }
            let shown = trust.open(reply.witnessed.as_bytes()).map_err(WitnessFault::from)?;
            let proof = KeptProof { size: point.size, hashes: reply.witnessed_consistency };
            match &mut kept {
                None => kept = Some(KeptWitness { note: reply.witnessed, proofs: vec![proof] }),
                Some(kept) => {
                    let first = trust.open(kept.note.as_bytes()).map_err(WitnessFault::from)?;
                    same &= Point::of(&first) == Point::of(&shown);
                    kept.proofs.push(proof);
                }
            }
        }
        // Another one was cosigned in between: the proofs lead to different ones.
        if let Some(kept) = kept.filter(|_| same) {
            let witnessed = verify_witnessed(receipt, &kept, dossier, trust)?;
            return Ok(Some((kept, witnessed)));
        }
    }
    Ok(None)
}

async fn ask(audit: &AuditClient<Channel>, size: u64, parties: [&OrgId; 2]) -> Result<GetPublishedReply, Error> {
    let organisations = parties.map(ToString::to_string).into();
    let request = GetPublishedRequest { seen_size: size, organisations };
    Ok(audit.clone().get_published(request).await?.into_inner())
}
