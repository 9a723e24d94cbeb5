#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests stop at the first surprise")]
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::{
    judge::{Epoch, Verdict, judge_uncached},
    rules::{
        ADDED_BYTES_MAX,
        engine::ENGINE_ERROR,
        fixture::{self, facts, terms},
    },
};

fn shown(text: &str) -> String {
    match check(text, &terms(|_| {})) {
        Ok(checked) => format!("{} rules\n", checked.rules.len()),
        Err(problems) => problems
            .into_iter()
            .map(|Problem { text, place, rule }| {
                let place = place.map_or_else(|| "?".to_owned(), |(line, column)| format!("{line}:{column}"));
                format!("{place} {} {text}\n", rule.as_deref().unwrap_or("-"))
            })
            .collect(),
    }
}

fn finds(text: &str, expected: &Expect) {
    expected.assert_eq(&shown(text));
}

/// What is found in a rule with this condition.
fn regrets(condition: &str, expected: &Expect) {
    finds(&format!("@id(\"x\")\nforbid (principal, action, resource) when {{ {condition} }};"), expected);
}

#[test]
fn faults_are_named_with_line_and_column() {
    finds(
        "",
        &expect![[r#"
        0 rules
    "#]],
    );
    finds(
        "@id(\"a\") forbid (principal, action, resource)\nwhen { context.streem };",
        &expect![[r#"
        2:8 lab/a attribute `streem` in context for Action::"Chat" not found; did you mean `stream`?
    "#]],
    );
    finds(
        "@id(\"a\")\nforbid (principal action, resource);",
        &expect![[r#"
        2:19 - unexpected token `action`; expected `!=`, `)`, `,`, `:`, `<`, `<=`, `==`, `>`, `>=`, `in`, or `is`
    "#]],
    );
    finds(
        "\n\n  @id(\"a\") permit (principal, action, resource);",
        &expect![[r#"
        3:3 lab/a the rule `lab/a` allows; only the baseline's `grant` does, and rules that are added can only forbid
    "#]],
    );
    finds(
        "forbid (principal, action, resource);",
        &expect![[r#"
        1:1 - rule number 1 has no `@id`
    "#]],
    );
    finds(
        "// one\n@id(\"A\") forbid (principal, action, resource) when { context.seed };",
        &expect![[r#"
        2:1 - rule number 1 has an `@id` that is not 1 to 64 of a-z, 0-9 and `-`
    "#]],
    );
    finds(
        "@id(\"a\") forbid (principal, action, resource) when { context.n > \"1\" };",
        &expect![[r#"
        1:66 lab/a unexpected type: expected Long but saw String
    "#]],
    );
    finds(
        "@id(\"a\") forbid (principal, action, resource) when { context.seed };\n\
         @id(\"a\") forbid (principal, action, resource) when { context.n > 1 };",
        &expect![[r#"
            2:1 - two rules have the id `lab/a`
        "#]],
    );
}

#[test]
fn templates_are_refused() {
    finds(
        "@id(\"t\") forbid (principal == ?principal, action, resource);",
        &expect![[r#"
        1:1 - the rule `t` is a template
    "#]],
    );
}

#[test]
fn a_policy_of_a_megabyte_is_refused_unread() {
    let rules: String = (0..20_000)
        .map(|i| {
            format!("@id(\"r{i}\") forbid (principal, action, resource) when {{ context.seed && context.stream }};\n")
        })
        .collect();
    assert!(rules.len() > 1_000_000);
    finds(
        &rules,
        &expect![[r#"
        ? - the rules have 1828890 bytes, more than 32768
    "#]],
    );
    let one = format!(
        "@id(\"x\") forbid (principal, action, resource) when {{ context.network == \"{}\" }};",
        "x".repeat(1 << 20)
    );
    finds(
        &one,
        &expect![[r#"
        ? - the rules have 1048653 bytes, more than 32768
    "#]],
    );
}

#[test]
fn the_bound_is_that_of_terms() {
    let padded = |bytes: usize| " ".repeat(bytes);
    assert!(check(&padded(ADDED_BYTES_MAX), &terms(|_| {})).is_ok());
    assert!(check(&padded(ADDED_BYTES_MAX + 1), &terms(|_| {})).is_err());
    let _ = fixture::added(&padded(ADDED_BYTES_MAX));
    let mut json = serde_json::to_value(terms(|_| {})).unwrap();
    json["policy"]["additions"] = padded(ADDED_BYTES_MAX + 1).into();
    assert!(Terms::parse(json.to_string().as_bytes()).is_err());
}

#[test]
fn deep_rules_are_refused() {
    regrets(
        &format!("{}context.seed{}", "(".repeat(9_000), ")".repeat(9_000)),
        &expect![[r#"
        ? - a rule has more than 24 nested brackets, 192 tokens or 24 nested operators
    "#]],
    );
    regrets(
        &format!("{}context.seed", "!".repeat(40)),
        &expect![[r#"
        2:45 - too many occurrences of `!`; cannot chain more the 4 applications of a unary operator
    "#]],
    );
    regrets(
        "context.seed || ".repeat(40).trim_end_matches("|| "),
        &expect![[r#"
        ? - a rule has more than 24 nested brackets, 192 tokens or 24 nested operators
    "#]],
    );
}

#[test]
fn rules_that_fail_on_some_calls_are_refused() {
    regrets(
        "context.tokensAsked + 9223372036854775807 > 256",
        &expect![[r#"
        1:1 lab/x a sum or product can leave the range of numbers on some calls, which would be refused without naming this rule; compare without reckoning
        1:1 lab/x tokens are compared with 9223372036854775807, but rules see them rounded up to a multiple of 256: write 9223372036854775552 or 9223372036854775807
    "#]],
    );
    regrets(
        "context.tokensAsked + 256 > 512",
        &expect![[r#"
        1:1 lab/x a sum or product can leave the range of numbers on some calls, which would be refused without naming this rule; compare without reckoning
    "#]],
    );
    regrets(
        "context.minute * 100000000000 > 5",
        &expect![[r#"
        1:1 lab/x a sum or product can leave the range of numbers on some calls, which would be refused without naming this rule; compare without reckoning
        1:1 lab/x a time is compared with 100000000000, but times are whole minutes since 1970: write minutes, not seconds or milliseconds
    "#]],
    );
    regrets(
        "Run::\"run-9\".purpose == context.purpose",
        &expect![[r#"
        1:1 lab/x `Run::"run-9"` is not in the terms, so that every call would be refused without naming this rule; give the terms that have it
    "#]],
    );
    regrets(
        "Run::\"run-1\".purpose == context.purpose",
        &expect![[r#"
        1 rules
    "#]],
    );
    // These cannot fail.
    regrets(
        "context.n + context.images > 9 && context.minute + 60 > principal.trainedUntil",
        &expect![[r#"
        1 rules
    "#]],
    );
}

#[test]
fn tokens_are_compared_with_what_they_are_rounded_to() {
    regrets(
        "context.tokensAsked > 1000",
        &expect![[r#"
        1:1 lab/x tokens are compared with 1000, but rules see them rounded up to a multiple of 256: write 768 or 1024
    "#]],
    );
    regrets(
        "1000 <= context.tokensAsked",
        &expect![[r#"
        1:1 lab/x tokens are compared with 1000, but rules see them rounded up to a multiple of 256: write 768 or 1024
    "#]],
    );
    regrets(
        "context.tokensAsked > 1024 && context.n == 3",
        &expect![[r#"
        1 rules
    "#]],
    );
    regrets(
        "(context.tokensAsked > 1024) == (context.n == 3)",
        &expect![[r#"
        1 rules
    "#]],
    );
    regrets(
        "[256, 300].contains(context.tokensAsked)",
        &expect![[r#"
        1:1 lab/x tokens are compared with 300, but rules see them rounded up to a multiple of 256: write 256 or 512
    "#]],
    );
    regrets(
        "(if context.stream then context.tokensAsked else 100) > 512",
        &expect![[r#"
        1:1 lab/x tokens are compared with 100, but rules see them rounded up to a multiple of 256: write 0 or 256
    "#]],
    );
    regrets(
        "context.n * context.tokensAsked > 512",
        &expect![[r#"
        1:1 lab/x a sum or product can leave the range of numbers on some calls, which would be refused without naming this rule; compare without reckoning
        1:1 lab/x tokens are multiplied before they are compared, which undoes their rounding to 256; compare them as they are
    "#]],
    );
}

#[test]
fn times_are_minutes_and_weekdays_are_days() {
    regrets(
        "context.minute < 1795176000",
        &expect![[r#"
        1:1 lab/x a time is compared with 1795176000, but times are whole minutes since 1970: write minutes, not seconds or milliseconds
    "#]],
    );
    regrets(
        "context.minute < 29919600 && principal.trainedUntil > 29919600",
        &expect![[r#"
        1 rules
    "#]],
    );
    regrets(
        "context.minuteOfDay > 1800",
        &expect![[r#"
        1:1 lab/x a time of day is compared with 1800, but it is a minute from 0 to 1440
    "#]],
    );
    regrets(
        "context.weekday == 7",
        &expect![[r#"
        1:1 lab/x a weekday is compared with 7, but 0 is Monday and 6 is Sunday; every other number is no day
    "#]],
    );
}

#[test]
fn an_ask_is_short_and_printable() {
    let rule =
        |ask: &str| format!("@id(\"x\") @ask(\"{ask}\") forbid (principal, action, resource) when {{ context.seed }};");
    finds(
        &rule("ask Kim"),
        &expect![[r#"
        1 rules
    "#]],
    );
    finds(
        &rule(&"x".repeat(201)),
        &expect![[r#"
        1:1 lab/x the text of `@ask` is not 1 to 200 bytes of printable text
    "#]],
    );
}

/// Pieces that are rules, nearly rules, or no rules.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "@id(\"a\")",
        "@id(\"b\")",
        "forbid",
        "permit",
        "(principal, action, resource)",
        "when",
        "unless",
        "{ context.seed }",
        "{ context.tokensAsked + 1 > 2 }",
        "{",
        "}",
        ";",
        "&&",
        "!",
        "context.n",
        "> 300",
        "\"",
        "\\",
        "//",
        "\n",
        "(",
        "Run::\"x\"",
        ".purpose",
        "@ask(\"k\")",
        "\u{202e}",
        "?principal",
        "if",
        "-9223372036854775808",
        "like \"*\"",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    // Each case is compiled twice.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_holds_is_loaded_and_never_allows_more(text in pieces()) {
        let base = terms(|_| {});
        if check(&text, &base).is_ok() {
            let with = fixture::added(&text);
            let epoch = Epoch::new(std::sync::Arc::new(with)).unwrap();
            let mut refused = facts();
            refused.seed = true;
            prop_assert_eq!(judge_uncached(&epoch, &refused).verdict, Verdict::Deny);
        }
    }

    #[test]
    fn what_holds_never_fails(tokens in any::<i64>(), n in any::<u32>(), factor in -9..9_i64, sum in any::<i64>()) {
        let text = format!(
            "@id(\"x\") forbid (principal, action, resource) when {{ context.n * {factor} + {sum} > context.images }};"
        );
        if check(&text, &terms(|_| {})).is_ok() {
            let mut facts = facts();
            (facts.tokens_asked, facts.n) = (tokens.unsigned_abs() / 2, n);
            let rules = Rules::new(&fixture::added(&text)).unwrap();
            prop_assert_ne!(rules.ask(&facts).reasons, vec![ENGINE_ERROR.to_owned()]);
        }
    }
}
