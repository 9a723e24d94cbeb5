#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use anteroom_policy::rules::english::baseline;
use anteroom_proto::time::{At, HOUR_MS, Term};

use super::*;
use crate::policy::sample;

fn both(terms: &Terms) -> (String, String) {
    let bytes = serde_json::to_vec(terms).unwrap();
    let page = of(terms, Digest::of(&bytes), bytes.len()).unwrap();
    (html::render(&page), text::render(&page))
}

#[test]
fn everything_that_is_signed_is_on_the_page_and_in_the_text() {
    let mut terms = sample::terms().unwrap();
    terms.policy.additions =
        "@id(\"hours\") @ask(\"ask Kim\") forbid (principal, action, resource) unless { context.weekday <= 4 };"
            .to_owned();
    terms.window.start_ms = Some(At::parse_rfc3339("2026-12-01T08:00:00Z").unwrap());
    let bytes = serde_json::to_vec(&terms).unwrap();
    let page = of_bytes("terms.json", &bytes).unwrap();
    let text = text::render(&page);
    let html = html::render(&page);
    let flat = |text: &str| {
        text.replace("&#39;", "'").replace("&quot;", "\"").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (html, text) = (flat(&html), flat(&text));
    let mut expected = vec![
        terms.grant.to_string(),
        Digest::of(&bytes).to_string(),
        digest(&terms).to_string(),
        terms.lab.key_set.to_string(),
        terms.agency.key_set.to_string(),
        terms.roster.to_string(),
        terms.instrument.clone(),
        terms.model.builds.first().unwrap().to_string(),
        "standard".to_owned(),
        "720 hours UTC".to_owned(),
        "2026-12-01T08:00:00.000Z".to_owned(),
        "2026-12-31T08:00:00.000Z".to_owned(),
        "evaluation".to_owned(),
        "hq".to_owned(),
        "PROPIN".to_owned(),
        "logit bias".to_owned(),
        "not lent".to_owned(),
        "ask Kim".to_owned(),
        "nobody but the lab decides on its release".to_owned(),
        "voluntary".to_owned(),
        "is, counted from Monday, not after Friday".to_owned(),
    ];
    expected.extend(baseline().unwrap().into_iter().map(|rule| rule.id));
    for what in expected {
        assert!(html.contains(&what), "the page lacks {what}");
        assert!(text.contains(&what), "the text lacks {what}");
    }
}

#[test]
fn hostile_names_are_text_and_nothing_else() {
    let mut terms = sample::terms().unwrap();
    let evil = "</td><script>alert(1)</script><img src=x onerror='x'>\" & \u{202e}evil\u{200b}\r\n";
    terms.instrument = format!("{evil}{}", "א".repeat(10_240));
    let run = terms.runs.first_mut().unwrap();
    run.purpose = evil.to_owned();
    run.networks = vec![evil.to_owned()];
    terms.marking.caveats = vec![evil.to_owned()];
    terms.features.named_fields = vec![evil.to_owned()];
    terms.policy.additions = "@id(\"x\") @ask(\"<b onclick='x'>\") forbid (principal, action, resource)\n\
         when { context.purpose == \"</code></pre><script>\" // \u{202e}<script>\n };"
        .to_owned();
    let (html, text) = both(&terms);
    for forbidden in ["<script", "<img", "<b ", "onerror='", "\u{202e}", "\u{200b}", "\r"] {
        assert!(!html.contains(forbidden), "{forbidden:?} got into the page");
    }
    assert!(html.contains("&lt;script&gt;alert(1)") && html.contains("[U+202E]evil[U+200B]"));
    assert!(!text.contains('\u{202e}') && !text.contains('\r') && text.contains("[U+202E]evil"));
}

#[test]
fn the_page_needs_and_runs_nothing() {
    let (html, _) = both(&sample::terms().unwrap());
    for forbidden in
        ["<script", "<link", "<iframe", "<img", "<form", "http://", "https://", "url(", "@import", "javascript:"]
    {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    // A browser runs the style whose digest the page's own policy names, and nothing else.
    let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let digest = data_encoding::BASE64.encode(Digest::of(style.as_bytes()).as_bytes());
    assert!(html.contains(&format!("default-src 'none'; style-src 'sha256-{digest}'")));
}

#[test]
fn lists_and_tables_are_closed() {
    let mut terms = sample::terms().unwrap();
    terms.policy.additions = "@id(\"deep\") forbid (principal, action, resource) when { context.seed && \
        (context.stream || (context.prefill && (context.reasoning || context.logitBias))) && context.n > 1 };"
        .to_owned();
    let (html, _) = both(&terms);
    for tag in [
        "ul", "li", "table", "tr", "td", "th", "section", "article", "div", "p", "h2", "h3", "bdi", "pre", "code",
        "thead", "tbody",
    ] {
        let opened = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        assert!(opened > 0, "{tag}");
    }
}

#[test]
fn odd_lengths_are_told_to_the_millisecond() {
    let mut terms = sample::terms().unwrap();
    terms.window.term_ms = Term::from_ms(HOUR_MS + 60_001).unwrap();
    let (html, _) = both(&terms);
    assert!(html.contains("1 hour, 1 minute and 1 millisecond UTC"), "{html}");
}

#[test]
fn terms_under_other_rules_make_no_page() {
    let mut terms = sample::terms().unwrap();
    terms.policy.baseline = Digest::of(b"another");
    assert!(matches!(of(&terms, Digest::of(b""), 0), Err(Fail::Local(_))));
    let mut terms = sample::terms().unwrap();
    for none in ["no rules", "@id(\"x\") permit (principal, action, resource) when { context.seed };"] {
        none.clone_into(&mut terms.policy.additions);
        assert!(matches!(of(&terms, Digest::of(b""), 0), Err(Fail::Local(_))), "{none}");
    }
    assert!(matches!(of_bytes("x", b"{}"), Err(Fail::Usage(_))));
}
