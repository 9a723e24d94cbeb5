//! Whether the terms of a grant lend what a request asks for.

use std::sync::Arc;

use anteroom_proto::names::GrantId;
use anteroom_sdk::{
    evaluator::Route,
    gateway::dry::{Bench, BenchError, Judged},
    home::{CertRole, Home, Use},
    system,
};

use super::Findings;

/// Whether the terms lend what a body asks for; judged here, by what the broker shows or, without it, by what is kept.
pub(super) async fn lent(home: &Home, grant: GrantId, (route, body): (Route, &[u8]), findings: &mut Findings) {
    let purpose = if home.cert_roles().contains(&CertRole::Workload) { Use::Call } else { Use::Act };
    let fetched = async { home.take_dossier(&home.fetch_dossier(&home.channel(purpose).await?, grant).await?) }.await;
    let held = match fetched {
        Ok(held) => Some(held),
        Err(_) => home.kept_dossier(grant).ok().flatten(),
    };
    let Some(held) = held else {
        let next = "accept the grant first, or try an offer with `anteroom grant dry-run GRANT`";
        return findings.wrong("feature", "there are no terms in force to judge it by", next);
    };
    let bench = Bench::new(Arc::new(held.terms().clone()), held.added_rules(), None, None);
    feature(bench.map(|bench| bench.judge(route, body, None, system::now())), findings);
}

fn feature(judged: Result<Judged, BenchError>, findings: &mut Findings) {
    match judged {
        Ok(Judged { asked, verdict: Ok(passed) }) => {
            findings.fine(
                "feature",
                format!("the terms lend {}; the call would hold {} tokens", asked.join(", "), passed.hold),
            );
        }
        Ok(Judged { verdict: Err(no), .. }) => {
            let field = no.field.map_or_else(String::new, |field| format!(" about the field `{field}`"));
            let found = format!("`{}`{field}, by {}: {}", no.refusal.code(), no.terms.join(", "), no.text);
            let next = "leave it out of the request, or ask the lab for a grant that lends it: terms never widen";
            findings.wrong("feature", found, next);
        }
        Err(error) => {
            findings.wrong("feature", error.to_string(), "use the version of this program that the broker has")
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use anteroom_proto::time::At;

    use super::*;
    use crate::policy::sample;

    #[test]
    fn a_feature_that_is_not_lent_is_told_by_field_and_term() {
        let terms = Arc::new(sample::terms().unwrap());
        let judge = |body: &str| {
            let mut findings = Findings::default();
            let bench = Bench::new(Arc::clone(&terms), &[], None, None);
            let judged = bench.map(|bench| bench.judge(Route::Chat, body.as_bytes(), None, At::clamped(1)));
            feature(judged, &mut findings);
            findings.0.pop().map(|finding| (finding.state, finding.found)).unwrap_or_default()
        };
        let (state, found) = judge(r#"{"model":"line","messages":[{"role":"user","content":"a"}],"seed":4}"#);
        assert!(state == "wrong" && found.contains("`seed`") && found.contains("features.seed"), "{found}");
        // The sample lends next to nothing: one token of budget.
        let (_, found) = judge(r#"{"model":"line","messages":[{"role":"user","content":"a"}]}"#);
        assert!(found.contains("budget.tokens"), "{found}");
    }
}
