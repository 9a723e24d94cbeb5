//! Every reason for "no": one stable public code each, and one text that says what the reader can do.
//!
//! **Invariant:** neither code nor text repeats content, teaches a rule's edges, or reads as a model's own refusal (tools score
//! such texts; a test keeps the words out).

/// What kind of "no" it is: how a client should treat it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The request is malformed; sending it again changes nothing.
    Invalid,
    /// Not allowed, for good or until somebody acts.
    Denied,
    /// The grant is over.
    Ended,
    /// Not yet, or not at the moment; trying later may do.
    Later,
    /// Something is already so.
    Conflict,
    /// There is no such thing, or the caller may not know of it.
    Unknown,
    /// The broker cannot serve at the moment.
    Unavailable,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident $code:literal $class:ident $text:literal;)*) => {
        /// A reason for "no".
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Refusal {
            $($(#[$doc])* #[doc = concat!("`", $code, "`: ", $text)] $variant,)*
        }

        impl Refusal {
            /// Every refusal.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its stable public code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What kind it is.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// What a reader is told: what, and the next step.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The refusal of this code.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|refusal| refusal.code() == code)
            }
        }
    };
}

refusals! {
    // Identity and rate.
    CallerRole "caller_role" Denied "this certificate's role does not go with this request; use the certificate of the role named in `--help`";
    CallerLocked "caller_locked" Denied "an organisation has locked this caller; ask who set the lock (`anteroom lock list`)";
    OrgUnknown "org_unknown" Denied "the organisation has not enrolled its key set; run `anteroom org enroll`";
    RateLimited "rate_limited" Later "too many requests from this caller; wait as long as the reply says";
    Busy "busy" Unavailable "the broker's queue is full; try again shortly";
    LedgerUnavailable "ledger_unavailable" Unavailable "the ledger cannot be written, so nothing passes; the operator has to make room or restart";
    ClockUntrusted "clock_untrusted" Unavailable "the broker's clock is not confirmed; a connector's or witness's clock has to agree first";

    // Enrolment and certificates.
    TokenInvalid "token_invalid" Denied "there is no such enrolment token; ask the operator for one";
    TokenUsed "token_used" Denied "the enrolment token was used before; if not by you, tell the operator, and ask for another";
    TokenExpired "token_expired" Denied "the enrolment token has ended; ask the operator for another";
    CsrInvalid "csr_invalid" Invalid "the certificate request cannot be used; see the detail";
    CertificateNotOurs "certificate_not_ours" Denied "the certificate comes from an existing authority, which renews it itself";
    CertificateNotIssued "certificate_not_issued" Unavailable "the broker could not issue a certificate; the operator finds why in its log";

    // Statements.
    StatementUnreadable "statement_unreadable" Invalid "the signed statement cannot be read; see the detail";
    StatementType "statement_type" Invalid "there is no act of this payload type";
    SignatureMissing "signature_missing" Denied "too few valid signatures by keys in the role this act needs";
    AttachmentMismatch "attachment_mismatch" Invalid "the attachment is not what the statement names by digest";
    NotYours "not_yours" Denied "the act belongs to another organisation than the caller's";
    KeySetMismatch "key_set_mismatch" Denied "a key-set fingerprint in the statement is not the one in force; compare fingerprints out of band";
    KeySetInvalid "key_set_invalid" Invalid "the key set breaks a rule of key sets; see the detail";
    OrgExists "org_exists" Conflict "the organisation is enrolled already, with another statement";
    Unsupported "unsupported" Invalid "this version cannot do that; see Limits in the README";

    // Models.
    ManifestInvalid "manifest_invalid" Invalid "the build manifest cannot be used; see the detail";
    LineUnknown "line_unknown" Unknown "the lab has not registered this model line or build; `anteroom model register` first";
    BuildInOtherLine "build_in_other_line" Denied "this build belongs to another line, and a line keeps its clock";
    SupersedesMismatch "supersedes_mismatch" Conflict "a new build of a line names the newest build before it";

    // Rosters and credentials.
    RosterInvalid "roster_invalid" Invalid "the roster cannot be used; see the detail";
    RosterUnknown "roster_unknown" Unknown "the agency has not published the roster that the terms name";
    PersonUnknown "person_unknown" Denied "the roster names no such person";
    PersonNotValid "person_not_valid" Denied "the person's engagement or training does not cover this instant";
    CredentialUnknown "credential_unknown" Denied "no run credential of this digest is in force; a rostered person has to sign one";
    CredentialExpired "credential_expired" Denied "the run credential has ended; a rostered person renews it";
    CredentialTooLong "credential_too_long" Invalid "a run credential lasts 72 hours at most";
    CredentialKey "credential_key" Invalid "a workload key is Ed25519 or ECDSA P-256 and stands on no roster";
    RunUnknown "run_unknown" Unknown "the terms plan no such run";

    // Grants.
    TermsInvalid "terms_invalid" Invalid "the terms are out of bounds; the detail names the field";
    TermsChanged "terms_changed" Denied "the terms or the offer signed are not the ones offered";
    PolicyUnknown "policy_unknown" Denied "the terms name other rules than this broker's; see `anteroom policy show`";
    GrantExists "grant_exists" Conflict "a grant of this name exists";
    GrantUnknown "grant_unknown" Unknown "there is no such grant, or the caller is not party to it";
    GrantNotAccepted "grant_not_accepted" Later "the agency has not accepted the offer";
    GrantAlreadyAccepted "grant_already_accepted" Conflict "the grant is past this step";
    GrantNotStarted "grant_not_started" Later "the grant's window has not started";
    GrantPaused "grant_paused" Later "a party has paused the grant; it can resume at any time before the end";
    GrantExpired "grant_expired" Ended "the grant's window has ended";
    GrantWithdrawn "grant_withdrawn" Ended "the lab has withdrawn the grant";
    GrantRelinquished "grant_relinquished" Ended "the agency has given the grant back";
    GrantDeclined "grant_declined" Ended "the agency has declined the offer";
    GrantLapsed "grant_lapsed" Ended "the offer was not accepted in time";
    TwoPeople "two_people_needed" Denied "lowered safeguards and tools that reach the internet take the signatures of two people of the lab";
    RulesInvalid "rules_invalid" Invalid "the rules cannot be used; the detail says why, and `anteroom policy check` says it beforehand";
    RulesChanged "rules_changed" Conflict "other rules are in force by now than the statement was written against; read them and sign again";
    WatchListInvalid "watch_list_invalid" Invalid "the list for the scanner cannot be used; see the detail";
    WatchListChanged "watch_list_changed" Conflict "another list is in force by now than the statement takes the place of; sign again";
    LineBudgetChanged "line_budget_changed" Conflict "another bound on this line is in force by now than the statement takes the place of; sign again";
    ContactsInvalid "contacts_invalid" Invalid "the list of contacts cannot be used; the detail says why";
    ContactsChanged "contacts_changed" Conflict "another list of contacts is in force by now than the statement takes the place of; sign again";
    SuccessionUnknown "succession_unknown" Unknown "no such succession is offered under this grant; `anteroom grant show` says what is";
    SuccessionChanged "succession_changed" Conflict "another build has taken the place since the statement was written; read `anteroom grant show` and sign again";
    SuccessionInstant "succession_instant" Invalid "the instant of the change has passed or is not inside the grant's window; the detail says what is expected";
    BuildNotLent "build_not_lent" Denied "the succession starts from a build that does not answer under this grant, or leads to one that does";
    VariantsMissing "variants_missing" Denied "the new build does not serve every variant that the terms lend; the detail names them";
    WindowOver "window_over" Invalid "the window named in the terms is over already";
    CapReached "cap_reached" Denied "the 720 hours of this model line with this sponsor are used up";
    LineNotDisclaimed "line_not_disclaimed" Denied "another line of this lab has a running clock; both sides have to state in the terms that the lines are unrelated";
    NotPaused "not_paused" Conflict "the caller's organisation has not paused the grant with that act";
    LockUnknown "lock_unknown" Unknown "no such lock stands";
    LockExists "lock_exists" Conflict "a lock of this identifier stands or stood; a lock gets a new random identifier";
    LockTarget "lock_target" Denied "an organisation locks only what touches its own grants, people and models";
    Locked "locked" Denied "an organisation has locked this; `anteroom lock list` says who and why";
    SponsorUnknown "sponsor_unknown" Denied "the sponsor has not stated that the agency is its member";

    // Calls.
    ClaimInvalid "claim_invalid" Invalid "the call's signed claim cannot be read or does not match the request";
    ClaimSignature "claim_signature" Denied "the claim is not signed by the run credential's workload key";
    ClaimClock "claim_clock" Invalid "the claim's clock is more than 5 minutes from the broker's; set the machine's clock";
    CallIdOld "call_id_old" Invalid "the call's identifier is more than 24 hours old or in the future; make a new one";
    CallRepeated "call_repeated" Conflict "this call has been made; ask for its outcome by its identifier";
    CallUnknown "call_unknown" Unknown "there is no such call, or the caller may not know of it";
    CallNotOpen "call_not_open" Conflict "the call has ended already";
    CallsRemembered "calls_remembered" Later "the grant made more calls in 24 hours than the broker remembers; slow down";
    BodyInvalid "body_invalid" Invalid "the body is not strict JSON of its route; the detail names the field";
    BodyTooLarge "body_too_large" Invalid "the body is larger than the terms say";
    FieldUnknown "field_unknown" Invalid "the body has a field that the broker does not know; a grant can name it in `features.named_fields`";
    PolicyDenied "broker_denied" Denied "a rule of this grant says no; the grant's lab can explain it";
    TokensExceeded "tokens_exceeded" Denied "the call asks for more tokens than the terms allow for one call";
    BudgetHeld "budget_held" Later "calls in flight hold what is left of the budget; try again when some have ended";
    BudgetSpent "budget_spent" Denied "the budget is spent";
    LineBudgetHeld "line_budget_held" Later "calls in flight hold what is left of the lab's bound on this model line; try again when some have ended";
    LineBudgetSpent "line_budget_spent" Denied "the lab's bound on all use of this model line is reached; ask the lab";
    LabOffline "lab_offline" Later "no connector of the lab has a free slot for this model; try again shortly";
    ConnectorRefused "connector_refused" Denied "the lab's connector refused the call";
    RouteNotServed "route_not_served" Denied "the lab's model server does not answer this route; ask the lab which routes it serves";
    ConnectorLost "connector_lost" Unavailable "the lab's connector went away in mid-call; its report will settle the budget";
    UpstreamFailed "upstream_failed" Unavailable "the model server failed or timed out";
    BuildSucceeded "build_succeeded" Later "another build took the place of the one that answered, and both sides agreed to cut its calls; make the call anew";
    OutputCut "output_cut" Denied "the answer reached its token bound and was cut there";
    ContentStopped "content_stopped" Denied "the answer held a string that this grant stops; the rest was withheld";
    StreamUnknownEvent "stream_unknown_event" Denied "the model server sent an event that the broker cannot read; the rest was withheld";
    CallerGone "caller_gone" Denied "the caller closed the stream";
    Shutdown "shutting_down" Unavailable "the broker is draining; try again shortly";

    // Retention.
    ScopeUnknown "scope_unknown" Unknown "there is no such scope, or nothing stands in it";
    ScopeKept "scope_kept" Denied "only scopes of grants, rosters and reads can be destroyed; this one is kept for ever";
    ScopeDisposed "scope_disposed" Ended "the scope was destroyed under its written schedule; the detail names the disposition";
    GrantLive "grant_live" Later "a grant that the scope belongs to has not ended";
    TooEarly "too_early" Later "the scope's time is not over; the detail says until when it is kept";
    ScheduleUnknown "schedule_unknown" Denied "the disposition names another schedule than the broker's configuration, or none is configured there";
    HoldStands "hold_stands" Denied "an organisation demands that nothing of this scope be destroyed; it has to release its hold first";
    HoldExists "hold_exists" Conflict "a hold of this identifier stands or stood; a hold gets a new random identifier";
    HoldUnknown "hold_unknown" Unknown "no such hold of the caller's organisation stands";

    // Reading.
    ScopeInvalid "scope_invalid" Invalid "the scope cannot be read; the detail says what is expected";
    ReaderNotEntitled "reader_not_entitled" Denied "the caller's organisation is no reader of this scope";
    OutcomeInvalid "outcome_invalid" Invalid "the outcome cannot be read, is for another call, or no connector key of the lab signed it";
    CheckpointDiverges "checkpoint_diverges" Denied "the checkpoint presented is not in this log's history; stop and compare logs";

    // Witnesses.
    WitnessUnknown "witness_unknown" Denied "the key set in force of the caller's organisation has no such key in the `witness` role";
    CosignatureInvalid "cosignature_invalid" Invalid "the cosignature is not one line of a note that holds over the published checkpoint";
    CheckpointSuperseded "checkpoint_superseded" Conflict "another checkpoint is the published one by now; ask for it and cosign that";
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_and_distinct() {
        let mut codes: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        codes.sort_unstable();
        let listed = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), listed);
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(refusal.code()), Some(*refusal));
            assert!(refusal.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn no_refusal_reads_as_a_models_own() {
        let words = [
            "content_filter",
            "policy_violation",
            "invalid_prompt",
            "bio_policy",
            "cyber_policy",
            "blocked",
            "safety",
            "usage policy",
        ];
        for refusal in Refusal::ALL {
            for word in words {
                assert!(!refusal.code().contains(word) && !refusal.text().contains(word), "{refusal:?} says {word}");
            }
        }
    }

    #[test]
    fn nothing_reads_as_an_official_blessing() {
        for refusal in Refusal::ALL {
            for word in ["approv", "cleared", "licens", "permit"] {
                assert!(!refusal.text().contains(word), "{refusal:?} says {word}");
            }
        }
    }
}
