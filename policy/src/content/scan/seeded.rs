//! Texts with something planted in them, to measure what the scanner finds: each detector's own, in surroundings as they occur.
//!
//! Made, not collected: no text holds a credential that anybody ever used, and none has to be kept in a repository.
//!
//! **Invariant:** the same seed gives the same texts.

use std::collections::BTreeSet;

use anteroom_proto::names::Digest;
use data_encoding::BASE64;

use super::{
    Detector, Profile, ScanConfig,
    classes::{self, Class},
    detectors::{
        self, BANNER_BARE, BANNER_CONFIDENTIAL, BANNER_SECRET, BANNER_TOP_SECRET, CANARY, CARD, CODE_NAME, EMAIL,
        ENCODED_BANNER, ENCODED_CANARY, ENCODED_CODE_NAME, ENCODED_SECRET, LIKELY_SECRET, MARKING_CUI, MARKING_NOFORN,
        MARKING_PROPIN, MENTION_NOFORN, MENTION_PROPIN, PORTION_CONFIDENTIAL, PORTION_SECRET, PRIVATE_KEY, RANGE_FLAG,
        SECRET, SECRET_KEYWORD, SSN,
    },
    secrets::{FORMATS, Format},
};

/// The canary that [`config`] knows.
pub const KNOWN_CANARY: &str = "zephyr-quartz-0417-lantern";
/// The code name that [`config`] knows.
pub const KNOWN_CODE_NAME: &str = "Marrowstone";
/// The flag that [`config`] knows.
pub const KNOWN_FLAG: &str = "FLAG{w3lc0me-t0-the-harb0ur}";
/// Printable characters in the order of their bytes.
const PRINTABLE: std::ops::RangeInclusive<u8> = b'!'..=b'~';

/// What the scanner of the seeded texts knows beside the patterns that all have.
#[must_use]
pub fn config(profile: Profile) -> ScanConfig {
    ScanConfig {
        canaries: vec![KNOWN_CANARY.to_owned()],
        canary_locks: false,
        code_names: vec![KNOWN_CODE_NAME.to_owned()],
        profile,
        flags: vec![Digest::of(KNOWN_FLAG.as_bytes())],
    }
}

/// A text with something planted in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planted {
    /// The detector whose it is.
    pub detector: &'static Detector,
    /// The hit that is expected.
    pub hit: &'static str,
    /// What was planted.
    pub plant: String,
    /// The text.
    pub text: String,
}

/// `each` texts for every hit of every detector that reads text.
#[must_use]
pub fn planted(seed: u64, each: usize) -> Vec<Planted> {
    let mut dice = Dice(seed);
    let mut all = Vec::new();
    for detector in detectors::detectors().iter().copied() {
        for hit in hits(detector) {
            for _ in 0..each {
                let plant = plant(detector, hit, &mut dice);
                // What is found in something else than text has nothing to plant.
                if plant.is_empty() {
                    break;
                }
                let text = surround(detector, &plant, &mut dice);
                all.push(Planted { detector, hit, plant, text });
            }
        }
    }
    all
}

/// The hits that a row stands for.
fn hits(detector: &'static Detector) -> Vec<&'static str> {
    if !detector.name.ends_with('*') {
        return vec![detector.name];
    }
    let mut hits: Vec<_> =
        FORMATS.iter().filter(|format| std::ptr::eq(format.row, detector)).map(|format| format.hit).collect();
    hits.dedup();
    hits
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list.get(self.below(list.len())).copied().unwrap_or_default()
    }

    fn text(&mut self, class: Class, length: usize) -> String {
        let fits: Vec<u8> = PRINTABLE.filter(|byte| classes::of(*byte) & class != 0).collect();
        (0..length).filter_map(|_| fits.get(self.below(fits.len()))).map(|byte| char::from(*byte)).collect()
    }

    fn digits(&mut self, length: usize) -> String {
        self.text(classes::DIGIT, length)
    }
}

/// Something of a detector's own.
fn plant(detector: &Detector, hit: &str, dice: &mut Dice) -> String {
    let is = |row: &Detector| row.name == detector.name;
    if is(&SECRET) || is(&LIKELY_SECRET) || is(&PRIVATE_KEY) || is(&SECRET_KEYWORD) || is(&EMAIL) {
        return form(hit, dice);
    }
    if is(&SSN) {
        let area = 1 + dice.below(665);
        return format!("{area:03}-{:02}-{:04}", 1 + dice.below(99), 1 + dice.below(9999));
    }
    if is(&CARD) {
        return card(dice);
    }
    if is(&ENCODED_CANARY) {
        return encoded(KNOWN_CANARY, dice);
    }
    if is(&ENCODED_CODE_NAME) {
        return encoded(KNOWN_CODE_NAME, dice);
    }
    if is(&ENCODED_BANNER) {
        return encoded(dice.of(&["TOP SECRET//SI//NOFORN", "SECRET//NOFORN", "(S//NF) The second site."]), dice);
    }
    if is(&ENCODED_SECRET) {
        let secret = form("secret_github_token", dice);
        return encoded(&format!("token {secret}"), dice);
    }
    let known: &[(&Detector, &[&str])] = &[
        (
            &BANNER_TOP_SECRET,
            &["TOP SECRET//SI//NOFORN", "TOP SECRET//HCS/TK//ORCON", "Top Secret//SCI", "ТОР SECRET//SI"],
        ),
        (
            &BANNER_SECRET,
            &["SECRET//NOFORN", "SECRET//REL TO USA, GBR", "secret//noforn", "ＳＥＣＲＥＴ／／ＮＯＦＯＲＮ"],
        ),
        (&BANNER_CONFIDENTIAL, &["CONFIDENTIAL//NOFORN", "CONFIDENTIAL//REL TO USA, AUS", "confidential//fgi"]),
        (&PORTION_SECRET, &["(S//NF) The second site.", "(TS//SI) Intercepts.", "(S//REL TO USA) Routes."]),
        (&PORTION_CONFIDENTIAL, &["(C//NF) The second site.", "(C//REL TO USA) Routes.", "(C//FGI) Names."]),
        (&BANNER_BARE, &["SECRET", "**CONFIDENTIAL**", "TOP SECRET"]),
        (&MARKING_CUI, &["CUI//SP-CTI", "(CUI) The budget.", "CUI//SP-PROPIN//FED ONLY", "CUI"]),
        (&MARKING_NOFORN, &["CUI//SP-CTI/NOFORN", "NOFORN", "CUI//NOFORN"]),
        (&MARKING_PROPIN, &["CUI//SP-CTI/PROPIN", "PROPIN", "CUI//PROPIN"]),
        (&MENTION_NOFORN, &["what does NOFORN mean", "the noforn caveat"]),
        (&MENTION_PROPIN, &["when is PROPIN used", "the propin caveat"]),
        (&CANARY, &[KNOWN_CANARY, "Zephyr-Quartz-0417-Lantern", "zephyr\u{2011}quartz-04\u{200b}17-lantern"]),
        (&CODE_NAME, &[KNOWN_CODE_NAME, "MARROWSTONE", "marrowstone-2", "Marrow\u{ad}stone"]),
        (&RANGE_FLAG, &[KNOWN_FLAG]),
    ];
    let found = known.iter().find(|(row, _)| is(row)).map_or(&[][..], |(_, plants)| plants);
    dice.of(found).to_owned()
}

/// Text in base64, with something before and after it, now and then in two layers or in lines.
fn encoded(text: &str, dice: &mut Dice) -> String {
    let before = dice.of(&["", "note: ", "user=evaluator\nsubject=", "{\"k\":\"v\"} "]);
    let once = BASE64.encode(format!("{before}{text} and so on, to the end of the page").as_bytes());
    match dice.below(3) {
        0 => BASE64.encode(once.as_bytes()),
        1 => once.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n"),
        _ => once,
    }
}

fn card(dice: &mut Dice) -> String {
    let head = dice.of(&["4", "51", "55", "6011", "2221", "34", "37", "3530", "62"]);
    let length = if matches!(head, "34" | "37") { 15 } else { 16 };
    let mut number = format!("{head}{}", dice.digits(length - 1 - head.len()));
    let sum: u32 = (1_u32..)
        .zip(number.bytes().rev())
        .map(|(place, byte)| {
            let digit = u32::from(byte.saturating_sub(b'0'));
            let twice = if place % 2 == 1 { digit.saturating_mul(2) } else { digit };
            if twice > 9 { twice.saturating_sub(9) } else { twice }
        })
        .sum();
    number.push_str(&(10_u32.saturating_sub(sum % 10) % 10).to_string());
    let groups: &[usize] = match (dice.below(3), length) {
        (0, _) => return number,
        (_, 15) => &[4, 6, 5],
        _ => &[4, 4, 4, 4],
    };
    let (mut rest, mut parts) = (number.as_str(), Vec::new());
    for group in groups {
        let (part, more) = rest.split_at_checked(*group).unwrap_or((rest, ""));
        parts.push(part);
        rest = more;
    }
    parts.join(dice.of(&[" ", "-"]))
}

/// A text of one of the forms with this hit, and of no other: of two forms in one text, the one that ends first is found.
fn form(hit: &str, dice: &mut Dice) -> String {
    let mut text = any_form(hit, dice);
    while holds_another(hit, &text) {
        text = any_form(hit, dice);
    }
    text
}

/// Whether a credential of another kind begins behind the literal of this one.
fn holds_another(hit: &str, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let literals = |own: bool| {
        let of_hit = FORMATS.iter().filter(move |format| (format.hit == hit) == own);
        of_hit.map(|format| format.literal.to_ascii_lowercase())
    };
    let behind = literals(true).filter_map(|literal| Some(text.split_once(&literal)?.1)).min_by_key(|rest| rest.len());
    behind
        .is_some_and(|rest| literals(false).filter(|literal| literal.len() > 2).any(|literal| rest.contains(&literal)))
}

fn any_form(hit: &str, dice: &mut Dice) -> String {
    let forms: Vec<&Format> = FORMATS.iter().filter(|format| format.hit == hit).collect();
    let Some(format) = forms.get(dice.below(forms.len())) else { return String::new() };
    let mut text = String::from(format.literal);
    if !format.exact && dice.below(2) == 0 {
        text = text.to_ascii_uppercase();
    }
    let mut drawn = body(format, dice);
    // What the scanner would take for a placeholder is drawn again.
    for _ in 0..16 {
        let kinds: BTreeSet<char> = drawn.chars().collect();
        if kinds.len() > usize::try_from(format.variety).unwrap_or(usize::MAX).saturating_add(2) {
            break;
        }
        drawn = body(format, dice);
    }
    text.push_str(&drawn);
    if hit == "private_key" {
        let lines: Vec<String> = (0..6).map(|_| dice.text(classes::BASE64_STANDARD, 64)).collect();
        let kind = format.literal.trim_start_matches("-----BEGIN");
        return format!("{text}{}\n{}\n-----END{kind}", dice.text(classes::BASE64_STANDARD, 24), lines.join("\n"));
    }
    if hit == "secret_keyword" {
        text.push('"');
    }
    if hit == "identifier_email" {
        return format!("{}.{}{text}m", dice.of(&["ada", "j", "ops", "kim.lee"]), dice.of(&["byron", "w", "team"]));
    }
    if hit == "likely_secret_url_password" {
        return format!("postgres{text}db.internal:5432/app");
    }
    if hit == "secret_terraform_token" {
        return format!("{}{text}", dice.text(classes::ALNUM, 14));
    }
    text
}

/// What follows a form's literal.
fn body(format: &Format, dice: &mut Dice) -> String {
    let mut text = String::new();
    for part in format.body {
        let most = part.max.min(part.min.saturating_add(12));
        let length = usize::from(part.min) + dice.below(usize::from(most.saturating_sub(part.min)) + 1);
        match part.class {
            classes::GAP => text.push('\n'),
            classes::BLANK => text.push(' '),
            classes::QUOTE if part.min == 0 => {}
            classes::QUOTE => text.push('"'),
            classes::ASSIGN => text.push(if dice.below(2) == 0 { '=' } else { ':' }),
            class => text.push_str(&dice.text(class, length)),
        }
    }
    text
}

/// Puts a plant where such a thing turns up.
fn surround(detector: &Detector, plant: &str, dice: &mut Dice) -> String {
    let name = detector.name;
    let own_line = name.starts_with("banner") || name.starts_with("marking") || name.starts_with("portion");
    let lines = plant.contains('\n') || own_line;
    let key = dice.of(&["credential", "auth", "upstream", "build", "notes"]);
    if lines {
        return match dice.below(5) {
            0 => format!("{plant}\n\nThe committee met twice. A summary follows."),
            1 => format!("Please summarise this for me:\n\n{plant}\nThe second paragraph is shorter.\n"),
            2 => format!("From: desk\nSubject: Fwd: report\n\n> as promised\n{plant}\n\nregards"),
            3 => format!("$ cat {key}.txt\n{plant}\n$ "),
            _ => format!("# Notes\n\n- first\n- second\n\n{plant}\n\n## Next\n"),
        };
    }
    match dice.below(10) {
        0 => format!("Could you check why this fails? I am using {plant} and get a 403."),
        1 => format!("# .env\nPORT=8080\n{}={plant}\nDEBUG=1\n", key.to_uppercase()),
        2 => format!("{{\"{key}\": \"{plant}\", \"retries\": 3}}"),
        3 => format!("{{\"arguments\": \"{{\\\"{key}\\\": \\\"{plant}\\\"}}\"}}"),
        4 => format!("{key}:\n  value: {plant}\n  region: eu-west-1\n"),
        5 => format!("2026-03-04T10:11:12Z INFO {key} started with ({plant}), 3 workers"),
        6 => format!("curl -s 'https://api.internal/v1/items?{key}={plant}' | jq ."),
        7 => format!("client = Client(\n    \"{plant}\",\n    timeout=30,\n)\n"),
        8 => format!("| {key} | value |\n|---|---|\n| 1 | {plant} |\n"),
        _ => format!("The last line of the log was `{plant}`, nothing after it."),
    }
}
