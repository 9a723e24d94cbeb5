//! What the things that rules speak of are called in English.
//!
//! **Invariant:** every attribute and every member of a record in the schema has a row here, of the kind that the schema gives it;
//! a test compares the two.

use anteroom_proto::time::At;

/// What an attribute or a member belongs to: an entity or a record of the schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Person,
    Grant,
    Run,
    Roster,
    Mark,
    Call,
}

impl Owner {
    /// The owner of this name in the schema, if it has anything.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "Person" => Some(Self::Person),
            "Grant" => Some(Self::Grant),
            "Run" => Some(Self::Run),
            "Roster" => Some(Self::Roster),
            "Mark" => Some(Self::Mark),
            "Call" => Some(Self::Call),
            _ => None,
        }
    }
}

/// What a number counts, hence how a number that it is compared with is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Plain,
    Minute,
    MinuteOfDay,
    Weekday,
    Tokens,
    Level,
    Verdict,
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Thing(Owner),
    Text,
    List,
    Number(Unit),
    Flag,
}

/// A name in English; `{}` stands for whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Says {
    /// A noun.
    Noun(&'static str),
    /// Two sentences: where it holds, and where it does not.
    Flag(&'static str, &'static str),
}

/// A row of the vocabulary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub(super) owner: Owner,
    pub(super) attribute: &'static str,
    pub(super) kind: Kind,
    pub(super) says: Says,
}

/// The row of an attribute.
pub(super) fn word(owner: Owner, attribute: &str) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.owner == owner && word.attribute == attribute)
}

const fn noun(owner: Owner, attribute: &'static str, kind: Kind, noun: &'static str) -> Word {
    Word { owner, attribute, kind, says: Says::Noun(noun) }
}

const fn flag(owner: Owner, attribute: &'static str, yes: &'static str, no: &'static str) -> Word {
    Word { owner, attribute, kind: Kind::Flag, says: Says::Flag(yes, no) }
}

/// The vocabulary, in the schema's order.
pub(super) const WORDS: &[Word] = &[
    noun(Owner::Mark, "level", Kind::Number(Unit::Level), "the level of {}"),
    noun(Owner::Mark, "caveats", Kind::List, "the list of caveats, NOFORN apart, of {}"),
    flag(Owner::Mark, "noforn", "{} says NOFORN", "{} does not say NOFORN"),
    noun(Owner::Mark, "relTo", Kind::List, "the REL TO list of {}"),
    noun(Owner::Person, "employer", Kind::Text, "the employer of {}"),
    flag(Owner::Person, "usPerson", "{} is stated to be a U.S. person", "{} is not stated to be a U.S. person"),
    flag(
        Owner::Person,
        "usOnly",
        "{} is stated to be a citizen of the United States and of no other country",
        "{} is not stated to be a citizen of the United States and of no other country",
    ),
    noun(Owner::Person, "relToOk", Kind::List, "the list of REL TO entries that cover {}"),
    noun(Owner::Person, "clearance", Kind::Number(Unit::Level), "the highest level that {} may read"),
    noun(Owner::Person, "readIns", Kind::List, "the list of read-ins of {}"),
    noun(Owner::Person, "trainedUntil", Kind::Number(Unit::Minute), "the end of the training validity of {}"),
    noun(Owner::Person, "engagedUntil", Kind::Number(Unit::Minute), "the end of the engagement of {}"),
    noun(Owner::Grant, "roster", Kind::Thing(Owner::Roster), "the roster that {} names"),
    noun(Owner::Grant, "line", Kind::Text, "the model line that {} lends"),
    noun(Owner::Grant, "variants", Kind::List, "the list of variants that {} lends"),
    noun(Owner::Grant, "mark", Kind::Thing(Owner::Mark), "the marking of {}"),
    flag(Owner::Grant, "chat", "{} lends chat", "{} does not lend chat"),
    flag(Owner::Grant, "completions", "{} lends completions", "{} does not lend completions"),
    flag(Owner::Grant, "embeddings", "{} lends embeddings", "{} does not lend embeddings"),
    flag(Owner::Grant, "responses", "{} lends the responses route", "{} does not lend the responses route"),
    flag(Owner::Grant, "messages", "{} lends the messages route", "{} does not lend the messages route"),
    flag(Owner::Grant, "streaming", "{} lends streamed answers", "{} does not lend streamed answers"),
    noun(Owner::Grant, "tools", Kind::List, "the list of tool kinds that {} lends"),
    noun(Owner::Grant, "images", Kind::Number(Unit::Plain), "the number of images that {} lends for a call"),
    noun(
        Owner::Grant,
        "logprobs",
        Kind::Number(Unit::Plain),
        "the number of log-probabilities that {} lends for a token",
    ),
    flag(Owner::Grant, "logitBias", "{} lends logit bias", "{} does not lend logit bias"),
    noun(Owner::Grant, "n", Kind::Number(Unit::Plain), "the number of answers that {} lends for a call"),
    flag(Owner::Grant, "seed", "{} lends a seed", "{} does not lend a seed"),
    flag(Owner::Grant, "prefill", "{} lends prefill", "{} does not lend prefill"),
    flag(Owner::Grant, "reasoning", "{} lends raw reasoning", "{} does not lend raw reasoning"),
    flag(Owner::Grant, "responseFormat", "{} lends structured output", "{} does not lend structured output"),
    noun(Owner::Grant, "namedFields", Kind::List, "the list of other body fields that {} lends"),
    noun(Owner::Run, "purpose", Kind::Text, "the signed purpose of {}"),
    noun(Owner::Run, "profile", Kind::Text, "the content profile of {}"),
    flag(Owner::Run, "anyNetwork", "{} names no networks", "{} names networks"),
    noun(Owner::Run, "networks", Kind::List, "the list of networks that {} names"),
    noun(Owner::Call, "run", Kind::Thing(Owner::Run), "the run of {}"),
    noun(Owner::Call, "purpose", Kind::Text, "the purpose of {}"),
    noun(Owner::Call, "minute", Kind::Number(Unit::Minute), "the time of {}"),
    noun(Owner::Call, "minuteOfDay", Kind::Number(Unit::MinuteOfDay), "the time of day (UTC) of {}"),
    noun(Owner::Call, "weekday", Kind::Number(Unit::Weekday), "the weekday (UTC) of {}"),
    noun(Owner::Call, "network", Kind::Text, "the network that {} comes from"),
    noun(Owner::Call, "model", Kind::Text, "the model line that {} asks for"),
    noun(Owner::Call, "variant", Kind::Text, "the variant that {} asks for"),
    noun(Owner::Call, "mark", Kind::Thing(Owner::Mark), "the marking of {}"),
    flag(Owner::Call, "stream", "{} asks for a streamed answer", "{} does not ask for a streamed answer"),
    noun(Owner::Call, "tools", Kind::List, "the list of tool kinds that {} asks for"),
    noun(Owner::Call, "images", Kind::Number(Unit::Plain), "the number of images in {}"),
    noun(
        Owner::Call,
        "logprobs",
        Kind::Number(Unit::Plain),
        "the number of log-probabilities that {} asks for each token",
    ),
    flag(Owner::Call, "logitBias", "{} asks for logit bias", "{} does not ask for logit bias"),
    noun(Owner::Call, "n", Kind::Number(Unit::Plain), "the number of answers that {} asks for"),
    flag(Owner::Call, "seed", "{} gives a seed", "{} gives no seed"),
    flag(Owner::Call, "prefill", "{} asks for prefill", "{} does not ask for prefill"),
    flag(Owner::Call, "reasoning", "{} asks for raw reasoning", "{} does not ask for raw reasoning"),
    noun(Owner::Call, "responseFormat", Kind::Text, "the answer format that {} asks for"),
    noun(
        Owner::Call,
        "tokensAsked",
        Kind::Number(Unit::Tokens),
        "the most tokens that {} can cost (rounded up to a multiple of 256)",
    ),
    noun(Owner::Call, "namedFields", Kind::List, "the list of other body fields in {}"),
    flag(
        Owner::Call,
        "repeated",
        "{} asks the same texts more often in 24 hours than the terms let",
        "{} does not ask the same texts more often in 24 hours than the terms let",
    ),
    noun(Owner::Call, "scanVerdict", Kind::Number(Unit::Verdict), "the scanner's verdict on {}"),
    noun(Owner::Call, "scanHits", Kind::List, "the list of detectors that hit in {}"),
];

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A number as its unit reads it.
pub(super) fn number(value: i64, unit: Unit) -> String {
    let named = match unit {
        Unit::Plain => None,
        Unit::Tokens => Some(format!("{value} tokens")),
        Unit::Minute => value.checked_mul(60_000).and_then(|ms| At::from_ms(ms).ok()).map(|at| {
            let text = at.to_string();
            // RFC 3339 in minutes is what is compared.
            let (day, time) = text.split_once('T').unwrap_or((&text, ""));
            let time: String = time.chars().take(5).collect();
            format!("{day} {time} UTC (minute {value})")
        }),
        Unit::MinuteOfDay => (0..=1_440)
            .contains(&value)
            .then(|| format!("{:02}:{:02} (minute {value} of the day)", value.div_euclid(60), value.rem_euclid(60))),
        Unit::Weekday => usize::try_from(value).ok().and_then(|day| WEEKDAYS.get(day)).map(ToString::to_string),
        Unit::Level => match value {
            0 => Some("0 (unclassified)".to_owned()),
            1 => Some("1 (CUI)".to_owned()),
            _ => None,
        },
        Unit::Verdict => match value {
            0 => Some("0 (clean)".to_owned()),
            1 => Some("1 (log)".to_owned()),
            2 => Some("2 (stop)".to_owned()),
            3 => Some("3 (stop and lock)".to_owned()),
            _ => None,
        },
    };
    named.unwrap_or_else(|| value.to_string())
}

/// The two comparisons `<` and `<=`, and their opposites `>=` and `>`, in words for this unit.
pub(super) const fn order(operator: Order, unit: Unit) -> &'static str {
    match (unit, operator) {
        (Unit::Minute | Unit::MinuteOfDay, Order::Less) => "is before",
        (Unit::Minute | Unit::MinuteOfDay, Order::AtMost) => "is not after",
        (Unit::Minute | Unit::MinuteOfDay, Order::AtLeast) => "is not before",
        (Unit::Minute | Unit::MinuteOfDay, Order::More) => "is after",
        (Unit::Weekday, Order::Less) => "is, counted from Monday, before",
        (Unit::Weekday, Order::AtMost) => "is, counted from Monday, not after",
        (Unit::Weekday, Order::AtLeast) => "is, counted from Monday, not before",
        (Unit::Weekday, Order::More) => "is, counted from Monday, after",
        (Unit::Plain | Unit::Tokens | Unit::Level | Unit::Verdict, Order::Less) => "is less than",
        (Unit::Plain | Unit::Tokens | Unit::Level | Unit::Verdict, Order::AtMost) => "is at most",
        (Unit::Plain | Unit::Tokens | Unit::Level | Unit::Verdict, Order::AtLeast) => "is at least",
        (Unit::Plain | Unit::Tokens | Unit::Level | Unit::Verdict, Order::More) => "is more than",
    }
}

/// How two numbers are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Less,
    AtMost,
    AtLeast,
    More,
}

impl Order {
    pub(super) fn parse(operator: &str) -> Option<Self> {
        match operator {
            "<" => Some(Self::Less),
            "<=" => Some(Self::AtMost),
            ">=" => Some(Self::AtLeast),
            ">" => Some(Self::More),
            _ => None,
        }
    }

    /// What holds exactly where this does not.
    pub(super) const fn opposite(self) -> Self {
        match self {
            Self::Less => Self::AtLeast,
            Self::AtMost => Self::More,
            Self::AtLeast => Self::Less,
            Self::More => Self::AtMost,
        }
    }
}
