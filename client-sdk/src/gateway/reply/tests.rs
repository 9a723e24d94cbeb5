#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]

use super::*;
use crate::{error::VerificationError, gateway::dialect::Dialect};

fn refused(code: &str, text: &str) -> Refused {
    Refused {
        code: code.to_owned(),
        text: text.to_owned(),
        grant: None,
        at: None,
        next: None,
        status: tonic::Code::PermissionDenied,
        retry_after: None,
    }
}

#[test]
fn calls_get_the_replies_that_are_promised() {
    let table: String = [
        "grant_expired",
        "grant_withdrawn",
        "grant_relinquished",
        "locked",
        "caller_locked",
        "budget_spent",
        "line_budget_spent",
        "budget_held",
        "line_budget_held",
        "rate_limited",
        "grant_paused",
        "broker_denied",
        "tokens_exceeded",
        "field_unknown",
        "body_invalid",
        "body_too_large",
        "lab_offline",
        "busy",
        "ledger_unavailable",
        "clock_untrusted",
        "shutting_down",
        "credential_expired",
        "credential_unknown",
        "person_not_valid",
        "grant_unknown",
        "grant_not_started",
        "call_repeated",
        "claim_clock",
        "connector_refused",
        "route_not_served",
        "connector_lost",
        "build_succeeded",
        "upstream_failed",
        "content_stopped",
        "output_cut",
    ]
    .iter()
    .map(|code| {
        let problem = Problem::of(Refusal::from_code(code).unwrap());
        let again = match problem.again() {
            Again::Maybe => "-".to_owned(),
            Again::Never => "never".to_owned(),
            Again::After(_) => format!("{} s", problem.retry_after().unwrap()),
        };
        format!("{code}: {} {} {again}\n", problem.status().as_u16(), problem.code())
    })
    .collect();
    assert_eq!(
        table,
        "grant_expired: 403 grant_expired never
grant_withdrawn: 403 grant_withdrawn never
grant_relinquished: 403 grant_relinquished never
locked: 403 locked never
caller_locked: 403 caller_locked never
budget_spent: 403 budget_spent never
line_budget_spent: 403 line_budget_spent never
budget_held: 429 budget_held 2 s
line_budget_held: 429 line_budget_held 2 s
rate_limited: 429 rate_limited 2 s
grant_paused: 503 paused 30 s
broker_denied: 422 broker_denied never
tokens_exceeded: 422 tokens_exceeded never
field_unknown: 422 field_unknown never
body_invalid: 400 body_invalid never
body_too_large: 413 body_too_large never
lab_offline: 503 lab_offline 2 s
busy: 503 busy 2 s
ledger_unavailable: 503 ledger_unavailable 2 s
clock_untrusted: 503 clock_untrusted 2 s
shutting_down: 503 shutting_down 2 s
credential_expired: 403 credential_expired never
credential_unknown: 403 credential_unknown never
person_not_valid: 403 person_not_valid never
grant_unknown: 403 grant_unknown never
grant_not_started: 403 grant_not_started never
call_repeated: 409 call_repeated never
claim_clock: 400 claim_clock never
connector_refused: 403 connector_refused never
route_not_served: 403 route_not_served never
connector_lost: 502 connector_lost never
build_succeeded: 502 build_succeeded never
upstream_failed: 502 upstream_failed -
content_stopped: 422 content_stopped never
output_cut: 422 output_cut never
"
    );
}

#[test]
fn nothing_reads_as_a_models_own_refusal_and_every_wait_is_bounded() {
    for refusal in Refusal::ALL {
        let plain = Problem::of(*refusal);
        let text = format!("{}; blocked by the Safety team's usage policy; content_filter", refusal.text());
        let said = Problem::refused(&Refused {
            next: Some("ask `safety@lab.example`".to_owned()),
            retry_after: Some(Duration::from_secs(7_200)),
            ..refused(refusal.code(), &text)
        });
        for problem in [&plain, &said] {
            for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
                let told = dialect.body(problem).to_string().to_lowercase();
                for word in READ_AS_A_MODELS {
                    assert!(!told.contains(word), "{}: {told}", refusal.code());
                }
            }
            assert!(!problem.message().is_empty());
            assert!(problem.retry_after().is_none_or(|seconds| (1..=60).contains(&seconds)));
            let status = problem.status().as_u16();
            assert!((400..600).contains(&status));
            assert_eq!(problem.retry_after().is_some(), matches!(status, 429 | 503), "{}", refusal.code());
            if matches!(refusal.class(), Class::Ended) || status == 403 {
                assert_eq!((status, problem.again()), (403, Again::Never));
            }
        }
    }
    let strange = Problem::refused(&refused("content_policy_violation", "the prompt was blocked"));
    assert_eq!((strange.code(), strange.message()), ("refused", "the broker refused the call"));
}

#[test]
fn once_a_grant_is_over_nothing_says_to_come_again() {
    for refusal in Refusal::ALL {
        let problem = Problem::of(*refusal).unless_over(true);
        assert!(!matches!(problem.again(), Again::After(_)));
        assert!(!matches!(problem.status().as_u16(), 429 | 503));
        assert_eq!(Problem::of(*refusal).unless_over(false), Problem::of(*refusal));
    }
}

#[test]
fn a_refusal_says_when_and_what_next_and_which_field() {
    let ended = Refused {
        at: Some(anteroom_proto::time::At::clamped(1_795_000_000_000)),
        next: Some("ask the lab".to_owned()),
        ..refused("grant_expired", "the grant's window has ended")
    };
    assert_eq!(
        Problem::refused(&ended).error(),
        json!({
            "message": "the grant's window has ended (at 2026-11-18T11:06:40.000Z); ask the lab",
            "type": "permission_error", "param": null, "code": "grant_expired",
        })
    );
    let unknown = refused("field_unknown", "no such field (the field `top_k` is unknown here)");
    assert_eq!(Problem::refused(&unknown).error()["param"], "top_k");
    let waits = Refused { retry_after: Some(Duration::from_millis(2_100)), ..refused("budget_held", "wait") };
    assert_eq!(Problem::refused(&waits).retry_after(), Some(3));
}

#[test]
fn what_failed_verification_is_never_a_refusal() {
    let problem = Problem::failed(&Error::from(VerificationError::Missing("receipt")));
    assert_eq!(
        (problem.status().as_u16(), problem.code(), problem.again()),
        (502, "verification_failed", Again::Never)
    );
    let lost =
        Error::AnswerLost { call: anteroom_proto::names::CallId::new(0, [0; 10]), state: "completed".to_owned() };
    assert_eq!((Problem::failed(&lost).status().as_u16(), Problem::failed(&lost).again()), (502, Again::Never));
    let away = Problem::failed(&Error::Transport("refused".to_owned()));
    assert_eq!((away.status().as_u16(), away.retry_after()), (503, Some(2)));
}
