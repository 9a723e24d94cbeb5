//! What is looked for: the grammar of banners and portion marks, and strings that a lab planted.

use super::{Detector, ScanVerdict, detectors as row};

/// What must stand before a literal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Anything.
    Any,
    /// No part of the same word.
    Word,
    /// Nothing but decoration since the line began.
    Line,
}

/// What must stand after a literal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Right {
    /// Anything.
    Any,
    /// No part of the same word.
    Word,
    /// Nothing but decoration until the line ends.
    Line,
}

/// A literal with its surroundings and what it means.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// The literal's shadow, in lower case.
    pub(super) literal: Vec<u8>,
    pub(super) row: &'static Detector,
    pub(super) left: Left,
    pub(super) right: Right,
    /// Whether small letters spoil it.
    pub(super) capitals: bool,
    /// Whether "not" before it spoils it. Never for what stops.
    pub(super) negatable: bool,
    /// By the scanner's profile.
    pub(super) verdict: ScanVerdict,
    /// Inside base64; clean where it is not looked for there.
    pub(super) encoded: ScanVerdict,
    /// Level that it raises a marking to.
    pub(super) level: u32,
    /// Caveat that it adds to a marking.
    pub(super) caveat: Option<&'static str>,
}

/// Control markings that follow a classification in a banner. None is a word that a comment could start with.
const CONTROLS: [&str; 25] = [
    "noforn", "rel to ", "orcon", "imcon", "propin", "si//", "si/", "si-", "tk//", "hcs", "fisa", "rsen", "dsen",
    "sar-", "rd//", "rd-", "frd", "fgi", "limdis", "exdis", "nodis", "fouo", "nato", "atomal", "sbu",
];

/// The patterns that every scanner has.
pub(super) fn base() -> Vec<Pattern> {
    let mut all = vec![
        stop("top secret//", &row::BANNER_TOP_SECRET, Left::Word, false),
        stop("secret//", &row::BANNER_SECRET, Left::Line, true),
        stop("confidential//", &row::BANNER_CONFIDENTIAL, Left::Line, true),
    ];
    for control in CONTROLS {
        all.push(stop(&format!("secret//{control}"), &row::BANNER_SECRET, Left::Word, false));
        all.push(stop(&format!("confidential//{control}"), &row::BANNER_CONFIDENTIAL, Left::Word, false));
    }
    for portion in ["(ts//", "(s//nf)", "(s//noforn", "(s//si", "(s//rel", "(s//oc", "(s//fgi"] {
        all.push(stop(portion, &row::PORTION_SECRET, Left::Any, true));
    }
    for portion in ["(c//nf)", "(c//noforn", "(c//rel", "(c//oc", "(c//fgi"] {
        all.push(stop(portion, &row::PORTION_CONFIDENTIAL, Left::Any, true));
    }
    for literal in ["top secret", "secret", "confidential"] {
        all.push(Pattern { capitals: true, ..note(literal, &row::BANNER_BARE, Left::Line, Right::Line) });
    }
    let cui =
        |literal, left, right| Pattern { level: 1, capitals: true, ..note(literal, &row::MARKING_CUI, left, right) };
    all.push(cui("cui//", Left::Word, Right::Any));
    all.push(cui("cui", Left::Line, Right::Line));
    all.push(cui("(cui)", Left::Any, Right::Any));
    all.push(cui("(cui//", Left::Any, Right::Any));
    for (word, caveat, marking, mention) in [
        ("noforn", "NOFORN", &row::MARKING_NOFORN, &row::MENTION_NOFORN),
        ("propin", "PROPIN", &row::MARKING_PROPIN, &row::MENTION_PROPIN),
    ] {
        let marked =
            |literal: &str, left, right| Pattern { caveat: Some(caveat), ..note(literal, marking, left, right) };
        all.push(marked(&format!("/{word}"), Left::Any, Right::Word));
        all.push(Pattern { capitals: true, ..marked(word, Left::Line, Right::Line) });
        all.push(note(word, mention, Left::Word, Right::Word));
    }
    all
}

/// The pattern of a string that a lab planted.
pub(super) fn canary(literal: Vec<u8>) -> Pattern {
    Pattern { literal, ..stop("", &row::CANARY, Left::Any, false) }
}

/// The pattern of a lab's code name. It is found at the head of a word, whatever follows: an answer may end with it.
pub(super) fn code_name(literal: Vec<u8>) -> Pattern {
    Pattern { literal, ..stop("", &row::CODE_NAME, Left::Word, false) }
}

fn stop(literal: &str, row: &'static Detector, left: Left, capitals: bool) -> Pattern {
    Pattern { capitals, negatable: false, ..note(literal, row, left, Right::Any) }
}

fn note(literal: &str, row: &'static Detector, left: Left, right: Right) -> Pattern {
    Pattern {
        literal: literal.as_bytes().to_vec(),
        row,
        left,
        right,
        capitals: false,
        negatable: true,
        verdict: ScanVerdict::Clean,
        encoded: ScanVerdict::Clean,
        level: 0,
        caveat: None,
    }
}
