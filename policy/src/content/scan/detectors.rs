//! The table of detectors: what is found, and what a finding means in each profile. Data; nothing is decided here.
//!
//! **Invariant:** whatever stops, stops on text that the detector has seen. A detector that has to wait for the next character
//! (a bare marking, a number, an address) logs in every profile, because an answer may end first; a test holds that.

use super::{Detector, ScanVerdict};

const MARKING_NOTE: &str = "notes what stands in the text; the marking raises the call's level, and rules judge that";
const BANNER_NOTE: &str = "classified text is never lent out here, in a cyber range as little as elsewhere";

macro_rules! rows {
    ($($row:ident: $name:literal, $finds:expr, $general:ident, $range:ident, $encoded:expr, $why:expr;)+) => {
        $(
            #[doc = $name]
            pub(super) static $row: Detector = Detector {
                name: $name,
                finds: $finds,
                general: ScanVerdict::$general,
                cyber_range: ScanVerdict::$range,
                why: $why,
                encoded: $encoded,
            };
        )+
        /// Every row.
        static ROWS: &[&Detector] = &[$(&$row),+];
    };
}

rows! {
    BANNER_TOP_SECRET: "banner_top_secret", "`TOP SECRET//` in any case", Stop, Stop, Some(&ENCODED_BANNER), BANNER_NOTE;
    BANNER_SECRET: "banner_secret", "`SECRET//` with a control marking, or in capitals at the head of a line",
        Stop, Stop, Some(&ENCODED_BANNER), BANNER_NOTE;
    BANNER_CONFIDENTIAL: "banner_confidential", "`CONFIDENTIAL//`, likewise",
        Stop, Stop, Some(&ENCODED_BANNER), BANNER_NOTE;
    PORTION_SECRET: "portion_secret", "portion marks such as `(TS//` and `(S//NF)`",
        Stop, Stop, Some(&ENCODED_BANNER), BANNER_NOTE;
    PORTION_CONFIDENTIAL: "portion_confidential", "portion marks such as `(C//NF)`",
        Stop, Stop, Some(&ENCODED_BANNER), BANNER_NOTE;
    BANNER_BARE: "banner_bare", "`SECRET` alone on a line, in capitals", Log, Log, None,
        "a heading in many an ordinary text; without the slashes it is no banner";
    MARKING_CUI: "marking_cui", "`CUI//`, `(CUI)`, or `CUI` alone on a line", Log, Log, None, MARKING_NOTE;
    MARKING_NOFORN: "marking_noforn", "`NOFORN` in a marking or alone on a line", Log, Log, None, MARKING_NOTE;
    MARKING_PROPIN: "marking_propin", "`PROPIN` in a marking or alone on a line", Log, Log, None, MARKING_NOTE;
    MENTION_NOFORN: "mention_noforn", "the word NOFORN", Log, Log, None, "a mention marks nothing";
    MENTION_PROPIN: "mention_propin", "the word PROPIN", Log, Log, None, "a mention marks nothing";
    CANARY: "canary", "a string that the lab planted where no answer should find it",
        Stop, Stop, Some(&ENCODED_CANARY), "it occurs nowhere by chance; it also locks where the terms say so";
    CODE_NAME: "code_name", "one of the lab's own code names at the head of a word",
        Stop, Stop, Some(&ENCODED_CODE_NAME), "the lab listed it as not to be spoken of";
    SECRET: "secret_*", "a credential whose issuer gave it a form of its own; each form has its own hit",
        Stop, Log, Some(&ENCODED_SECRET),
        "real credentials do not belong in a call; a cyber range is full of planted ones";
    PRIVATE_KEY: "private_key", "a private-key block: its first line and 40 characters of key",
        Stop, Log, Some(&ENCODED_SECRET), "as credentials; the first line alone stands in too much code";
    LIKELY_SECRET: "likely_secret_*", "a form that is weak, short-lived or meant for tests: JWTs, test keys, passwords in URLs",
        Log, Log, None, "every tutorial has one, and JWTs expire by themselves";
    SECRET_KEYWORD: "secret_keyword", "`password = \"…\"` and its like", Log, Log, None,
        "mostly examples and tests; nobody can tell them from real ones by their form";
    SSN: "identifier_ssn", "a US social security number with dashes, of a valid series", Log, Log, None,
        "nine digits of a valid series are often something else, and persons are made up in evaluations";
    CARD: "identifier_card", "a payment card number of a known issuer whose check digit is right", Log, Log, None,
        "one random number in ten has the right check digit, and the industry's test cards are in every example";
    EMAIL: "identifier_email", "an e-mail address", Log, Log, None, "letters, code and licences are full of them";
    ENCODED_CANARY: "encoded_canary", "a canary inside base64, up to two layers deep", Stop, Stop, None,
        "it occurs nowhere by chance, so encoding it was on purpose";
    ENCODED_CODE_NAME: "encoded_code_name", "a code name of 6 bytes or more inside base64", Stop, Stop, None,
        "as in plain text";
    ENCODED_BANNER: "encoded_banner", "a classified banner or portion mark inside base64", Stop, Log, None,
        "in a cyber range encoded documents are bait";
    ENCODED_SECRET: "encoded_secret", "a credential or private key inside base64", Stop, Log, None,
        "as in plain text";
    RANGE_FLAG: "range_flag", "a word whose SHA-256 is registered as a range's flag", Log, Log, None,
        "it counts who found what, and is no leak";
    TOKEN_PROMPT: "token_prompt", "a prompt of token numbers, which nothing here can read", Log, Log, None,
        "the rules can refuse it; the scanner says that it did not read it";
    UNKNOWN_EVENT: "unknown_event", "an event of an answer that the routes do not stream", Stop, Stop, None,
        "what cannot be read does not pass";
    TOO_MANY_CHANNELS: "too_many_channels", "an answer with more channels than are kept apart", Stop, Stop, None,
        "what cannot be read does not pass";
    SCANNER_FAILED: "scanner_failed", "a fault of the scanner itself", Stop, Stop, None, "errors deny";
}

/// The table of detectors, for whoever has to read what passes.
#[must_use]
pub fn detectors() -> &'static [&'static Detector] {
    ROWS
}
