//! What is looked for: the grammar of banners and portion marks, and strings that a lab planted.

use super::ScanVerdict;

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
    /// Name of the detector in facts.
    pub(super) detector: &'static str,
    pub(super) left: Left,
    pub(super) right: Right,
    /// Whether small letters spoil it.
    pub(super) capitals: bool,
    /// Whether "not" before it spoils it. Never for what stops.
    pub(super) negatable: bool,
    pub(super) verdict: ScanVerdict,
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
        stop("top secret//", "banner_top_secret", Left::Word, false),
        stop("secret//", "banner_secret", Left::Line, true),
        stop("confidential//", "banner_confidential", Left::Line, true),
    ];
    for control in CONTROLS {
        all.push(stop(&format!("secret//{control}"), "banner_secret", Left::Word, false));
        all.push(stop(&format!("confidential//{control}"), "banner_confidential", Left::Word, false));
    }
    for portion in ["(ts//", "(s//nf)", "(s//noforn", "(s//si", "(s//rel", "(s//oc", "(s//fgi"] {
        all.push(stop(portion, "portion_secret", Left::Any, true));
    }
    for portion in ["(c//nf)", "(c//noforn", "(c//rel", "(c//oc", "(c//fgi"] {
        all.push(stop(portion, "portion_confidential", Left::Any, true));
    }
    for literal in ["top secret", "secret", "confidential"] {
        all.push(Pattern { capitals: true, ..note(literal, "banner_bare", Left::Line, Right::Line) });
    }
    let cui = |literal, left, right| Pattern { level: 1, capitals: true, ..note(literal, "marking_cui", left, right) };
    all.push(cui("cui//", Left::Word, Right::Any));
    all.push(cui("cui", Left::Line, Right::Line));
    all.push(cui("(cui)", Left::Any, Right::Any));
    all.push(cui("(cui//", Left::Any, Right::Any));
    for (word, caveat, marking, mention) in [
        ("noforn", "NOFORN", "marking_noforn", "mention_noforn"),
        ("propin", "PROPIN", "marking_propin", "mention_propin"),
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
pub(super) fn canary(literal: Vec<u8>, locks: bool) -> Pattern {
    let verdict = if locks { ScanVerdict::StopAndLock } else { ScanVerdict::Stop };
    Pattern { literal, verdict, ..stop("", "canary", Left::Any, false) }
}

fn stop(literal: &str, detector: &'static str, left: Left, capitals: bool) -> Pattern {
    let found = note(literal, detector, left, Right::Any);
    Pattern { capitals, negatable: false, verdict: ScanVerdict::Stop, ..found }
}

fn note(literal: &str, detector: &'static str, left: Left, right: Right) -> Pattern {
    Pattern {
        literal: literal.as_bytes().to_vec(),
        detector,
        left,
        right,
        capitals: false,
        negatable: true,
        verdict: ScanVerdict::Log,
        level: 0,
        caveat: None,
    }
}
