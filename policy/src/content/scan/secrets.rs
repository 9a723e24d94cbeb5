//! Credentials by their form: a literal that the issuer puts in front, and which characters follow it. Data, one line a form.
//!
//! **Invariant:** a form is found as soon as its least length is there, so that nothing has to be known of what follows; and a
//! part never takes a character that the part after it needs, so that it is read from left to right, once.

use super::{
    Detector, classes as c,
    classes::Class,
    detectors::{EMAIL, LIKELY_SECRET, PRIVATE_KEY, SECRET, SECRET_KEYWORD},
};

/// What must stand before the literal of a form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Before {
    /// Anything.
    Any,
    /// No letter and no digit.
    NoAlnum,
    /// A character of a mailbox.
    Mailbox,
}

/// Characters of one class, so many of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) class: Class,
    pub(super) min: u16,
    pub(super) max: u16,
}

/// A form.
#[derive(Debug)]
pub(super) struct Format {
    pub(super) row: &'static Detector,
    /// Name of the hit.
    pub(super) hit: &'static str,
    pub(super) literal: &'static str,
    /// Whether the literal's case counts.
    pub(super) exact: bool,
    pub(super) before: Before,
    pub(super) body: &'static [Part],
    /// Different characters that what follows the literal has at least: `xxxx…` and `0000…` are placeholders.
    pub(super) variety: u32,
}

const fn part(class: Class, min: u16, max: u16) -> Part {
    Part { class, min, max }
}

const fn one(class: Class) -> Part {
    part(class, 1, 1)
}

const fn stop(hit: &'static str, literal: &'static str, body: &'static [Part]) -> Format {
    Format { row: &SECRET, hit, literal, exact: true, before: Before::NoAlnum, body, variety: 6 }
}

const fn weak(hit: &'static str, literal: &'static str, body: &'static [Part]) -> Format {
    Format { row: &LIKELY_SECRET, ..stop(hit, literal, body) }
}

const fn block(literal: &'static str) -> Format {
    Format { row: &PRIVATE_KEY, hit: "private_key", before: Before::Any, variety: 8, ..stop("", literal, KEY) }
}

const fn keyword(literal: &'static str) -> Format {
    let form = stop("secret_keyword", literal, QUOTED);
    Format { row: &SECRET_KEYWORD, exact: false, before: Before::Any, variety: 5, ..form }
}

/// A key: a line break in a file or in code, and a line of it.
const KEY: &[Part] = &[part(c::GAP, 1, 24), part(c::BASE64_STANDARD, 40, 40)];
/// What stands behind a word for secrets: an assignment, and something in quotation marks.
const QUOTED: &[Part] = &[
    part(c::QUOTE, 0, 2),
    part(c::BLANK, 0, 1),
    part(c::ASSIGN, 1, 2),
    part(c::BLANK, 0, 1),
    part(c::QUOTE, 1, 2),
    part(c::VALUE, 8, 8),
];
/// A Slack token: its kind, two or three numbers, and the secret.
const SLACK_BOT: &[Part] =
    &[part(c::DIGIT, 9, 13), one(c::DASH), part(c::DIGIT, 9, 13), one(c::DASH), part(c::ALNUM, 20, 20)];
const SLACK_USER: &[Part] = &[
    part(c::DIGIT, 9, 13),
    one(c::DASH),
    part(c::DIGIT, 9, 13),
    one(c::DASH),
    part(c::DIGIT, 9, 13),
    one(c::DASH),
    part(c::ALNUM, 24, 24),
];
const WEBHOOK: &[Part] = &[part(c::DIGIT, 17, 20), one(c::SLASH), part(c::TOKEN, 60, 60)];

/// The forms.
pub(super) static FORMATS: &[Format] = &[
    // Clouds.
    stop("secret_aws_access_key", "AKIA", &[part(c::UPPER, 16, 16)]),
    stop("secret_aws_session_key", "ASIA", &[part(c::UPPER, 16, 16)]),
    stop("secret_aws_bedrock_key", "ABSK", &[part(c::BASE64_STANDARD, 100, 100)]),
    stop("secret_google_api_key", "AIza", &[part(c::TOKEN, 35, 35)]),
    stop("secret_google_oauth_secret", "GOCSPX-", &[part(c::TOKEN, 28, 28)]),
    stop("secret_google_oauth_token", "ya29.", &[part(c::TOKEN, 40, 40)]),
    stop("secret_azure_storage_key", "AccountKey=", &[part(c::BASE64_STANDARD, 80, 80)]),
    stop("secret_alibaba_access_key", "LTAI", &[part(c::ALNUM, 16, 16)]),
    stop("secret_digitalocean_token", "dop_v1_", &[part(c::HEX, 64, 64)]),
    stop("secret_digitalocean_oauth", "doo_v1_", &[part(c::HEX, 64, 64)]),
    stop("secret_digitalocean_refresh", "dor_v1_", &[part(c::HEX, 64, 64)]),
    stop("secret_databricks_token", "dapi", &[part(c::HEX, 32, 32)]),
    stop("secret_fly_token", "fo1_", &[part(c::TOKEN, 40, 40)]),
    stop("secret_supabase_token", "sbp_", &[part(c::HEX, 40, 40)]),
    stop("secret_planetscale_token", "pscale_tkn_", &[part(c::TOKEN, 32, 32)]),
    stop("secret_planetscale_password", "pscale_pw_", &[part(c::TOKEN, 32, 32)]),
    stop("secret_planetscale_oauth", "pscale_oauth_", &[part(c::TOKEN, 32, 32)]),
    Format { before: Before::Any, ..stop("secret_terraform_token", ".atlasv1.", &[part(c::TOKEN, 60, 60)]) },
    stop("secret_pulumi_token", "pul-", &[part(c::HEX, 40, 40)]),
    stop("secret_vault_token", "hvs.", &[part(c::TOKEN, 80, 80)]),
    stop("secret_vault_batch_token", "hvb.", &[part(c::TOKEN, 100, 100)]),
    stop("secret_doppler_token", "dp.pt.", &[part(c::ALNUM, 43, 43)]),
    stop("secret_tailscale_key", "tskey-auth-", &[part(c::ALNUM, 8, 24), one(c::DASH), part(c::ALNUM, 20, 20)]),
    stop("secret_tailscale_api_key", "tskey-api-", &[part(c::ALNUM, 8, 24), one(c::DASH), part(c::ALNUM, 20, 20)]),
    // Code and packages.
    stop("secret_github_token", "ghp_", &[part(c::ALNUM, 36, 36)]),
    stop("secret_github_oauth", "gho_", &[part(c::ALNUM, 36, 36)]),
    stop("secret_github_user_to_server", "ghu_", &[part(c::ALNUM, 36, 36)]),
    stop("secret_github_server_to_server", "ghs_", &[part(c::ALNUM, 36, 36)]),
    stop("secret_github_refresh", "ghr_", &[part(c::ALNUM, 36, 36)]),
    stop("secret_github_fine_grained", "github_pat_", &[part(c::NAME, 82, 82)]),
    stop("secret_gitlab_token", "glpat-", &[part(c::TOKEN, 20, 20)]),
    stop("secret_gitlab_deploy_token", "gldt-", &[part(c::TOKEN, 20, 20)]),
    stop("secret_gitlab_runner_token", "glrt-", &[part(c::TOKEN, 20, 20)]),
    stop("secret_gitlab_trigger_token", "glptt-", &[part(c::HEX, 40, 40)]),
    stop("secret_gitlab_feed_token", "glft-", &[part(c::TOKEN, 20, 20)]),
    stop("secret_gitlab_agent_token", "glagent-", &[part(c::TOKEN, 50, 50)]),
    stop("secret_npm_token", "npm_", &[part(c::ALNUM, 36, 36)]),
    stop("secret_pypi_token", "pypi-AgE", &[part(c::TOKEN, 50, 50)]),
    stop("secret_rubygems_key", "rubygems_", &[part(c::HEX, 48, 48)]),
    stop("secret_docker_token", "dckr_pat_", &[part(c::TOKEN, 27, 27)]),
    stop("secret_buildkite_token", "bkua_", &[part(c::HEX, 40, 40)]),
    stop("secret_atlassian_token", "ATATT3xFfGF0", &[part(c::TOKEN, 100, 100)]),
    stop("secret_bitbucket_token", "ATCTT3xFfGN0", &[part(c::TOKEN, 100, 100)]),
    // Models.
    stop("secret_anthropic_key", "sk-ant-", &[part(c::TOKEN, 32, 32)]),
    stop("secret_openai_project_key", "sk-proj-", &[part(c::TOKEN, 40, 40)]),
    stop("secret_openai_service_key", "sk-svcacct-", &[part(c::TOKEN, 40, 40)]),
    stop("secret_openai_admin_key", "sk-admin-", &[part(c::TOKEN, 40, 40)]),
    stop("secret_openai_key", "sk-", &[part(c::ALNUM, 48, 48)]),
    stop("secret_openrouter_key", "sk-or-v1-", &[part(c::HEX, 64, 64)]),
    stop("secret_huggingface_token", "hf_", &[part(c::ALNUM, 34, 34)]),
    stop("secret_huggingface_org_token", "api_org_", &[part(c::ALNUM, 34, 34)]),
    stop("secret_nvidia_key", "nvapi-", &[part(c::TOKEN, 60, 60)]),
    stop("secret_groq_key", "gsk_", &[part(c::ALNUM, 52, 52)]),
    stop("secret_xai_key", "xai-", &[part(c::ALNUM, 80, 80)]),
    stop("secret_replicate_token", "r8_", &[part(c::ALNUM, 37, 37)]),
    stop("secret_perplexity_key", "pplx-", &[part(c::ALNUM, 48, 48)]),
    // Talk and mail.
    stop("secret_slack_bot_token", "xoxb-", SLACK_BOT),
    stop("secret_slack_user_token", "xoxp-", SLACK_USER),
    stop("secret_slack_rotated_token", "xoxe.xoxp-1-", &[part(c::TOKEN, 100, 100)]),
    stop(
        "secret_slack_app_token",
        "xapp-1-",
        &[part(c::UPPER, 8, 12), one(c::DASH), part(c::DIGIT, 10, 14), one(c::DASH), part(c::HEX, 64, 64)],
    ),
    stop(
        "secret_slack_webhook",
        "hooks.slack.com/services/",
        &[part(c::ALNUM, 8, 12), one(c::SLASH), part(c::ALNUM, 8, 12), one(c::SLASH), part(c::ALNUM, 20, 20)],
    ),
    stop("secret_discord_webhook", "discord.com/api/webhooks/", WEBHOOK),
    stop("secret_discord_webhook", "discordapp.com/api/webhooks/", WEBHOOK),
    stop("secret_sendgrid_key", "SG.", &[part(c::TOKEN, 22, 22), one(c::DOT), part(c::TOKEN, 43, 43)]),
    stop("secret_brevo_key", "xkeysib-", &[part(c::HEX, 64, 64), one(c::DASH), part(c::ALNUM, 16, 16)]),
    // Money and shops.
    stop("secret_stripe_key", "sk_live_", &[part(c::ALNUM, 24, 24)]),
    stop("secret_stripe_restricted_key", "rk_live_", &[part(c::ALNUM, 24, 24)]),
    stop("secret_stripe_webhook_secret", "whsec_", &[part(c::BASE64_STANDARD, 32, 32)]),
    stop("secret_square_secret", "sq0csp-", &[part(c::TOKEN, 43, 43)]),
    stop("secret_square_token", "sq0atp-", &[part(c::TOKEN, 22, 22)]),
    stop("secret_shopify_token", "shpat_", &[part(c::HEX, 32, 32)]),
    stop("secret_shopify_custom_token", "shpca_", &[part(c::HEX, 32, 32)]),
    stop("secret_shopify_private_token", "shppa_", &[part(c::HEX, 32, 32)]),
    stop("secret_shopify_shared_secret", "shpss_", &[part(c::HEX, 32, 32)]),
    stop("secret_shippo_token", "shippo_live_", &[part(c::HEX, 40, 40)]),
    stop("secret_duffel_token", "duffel_live_", &[part(c::TOKEN, 43, 43)]),
    // Work and watching.
    stop("secret_linear_key", "lin_api_", &[part(c::ALNUM, 40, 40)]),
    stop("secret_notion_token", "ntn_", &[part(c::ALNUM, 46, 46)]),
    stop("secret_postman_key", "PMAK-", &[part(c::HEX, 24, 24), one(c::DASH), part(c::HEX, 34, 34)]),
    stop("secret_figma_token", "figd_", &[part(c::TOKEN, 40, 40)]),
    stop("secret_contentful_token", "CFPAT-", &[part(c::TOKEN, 43, 43)]),
    stop("secret_grafana_token", "glsa_", &[part(c::ALNUM, 32, 32), one(c::LOW_LINE), part(c::HEX, 8, 8)]),
    stop("secret_newrelic_key", "NRAK-", &[part(c::UPPER, 27, 27)]),
    stop("secret_sentry_token", "sntryu_", &[part(c::HEX, 64, 64)]),
    stop("secret_dynatrace_token", "dt0c01.", &[part(c::ALNUM, 24, 24), one(c::DOT), part(c::ALNUM, 64, 64)]),
    stop("secret_facebook_token", "EAACEdEose0cBA", &[part(c::ALNUM, 20, 20)]),
    // Keys that people hold.
    stop("secret_age_key", "AGE-SECRET-KEY-1", &[part(c::UPPER, 58, 58)]),
    stop("secret_onepassword_token", "ops_eyJ", &[part(c::BASE64_STANDARD, 100, 100)]),
    block("-----BEGIN PRIVATE KEY-----"),
    block("-----BEGIN RSA PRIVATE KEY-----"),
    block("-----BEGIN EC PRIVATE KEY-----"),
    block("-----BEGIN DSA PRIVATE KEY-----"),
    block("-----BEGIN OPENSSH PRIVATE KEY-----"),
    block("-----BEGIN ENCRYPTED PRIVATE KEY-----"),
    block("-----BEGIN PGP PRIVATE KEY BLOCK-----"),
    // Weak, short-lived or for tests.
    Format {
        variety: 12,
        ..weak(
            "likely_secret_jwt",
            "eyJ",
            &[part(c::TOKEN, 10, 1024), one(c::DOT), part(c::TOKEN, 16, 4096), one(c::DOT), part(c::TOKEN, 16, 16)],
        )
    },
    weak("likely_secret_stripe_test_key", "sk_test_", &[part(c::ALNUM, 24, 24)]),
    weak("likely_secret_twilio_key", "SK", &[part(c::HEX, 32, 32)]),
    weak("likely_secret_mailgun_key", "key-", &[part(c::HEX, 32, 32)]),
    weak("likely_secret_crates_token", "cio", &[part(c::ALNUM, 32, 32)]),
    Format { exact: false, variety: 5, ..weak("likely_secret_bearer", "bearer ", &[part(c::TOKEN | c::DOT, 24, 24)]) },
    Format {
        before: Before::Any,
        variety: 4,
        ..weak(
            "likely_secret_url_password",
            "://",
            &[part(c::NAME | c::DOT | c::DASH, 1, 64), one(c::COLON), part(c::URL_PASSWORD, 6, 128), one(c::AT)],
        )
    },
    // Words that stand before secrets.
    keyword("password"),
    keyword("passwd"),
    keyword("passphrase"),
    keyword("pwd"),
    keyword("secret"),
    keyword("token"),
    keyword("api_key"),
    keyword("api-key"),
    keyword("apikey"),
    keyword("access_key"),
    keyword("accesskey"),
    keyword("secret_key"),
    keyword("secretkey"),
    keyword("private_key"),
    keyword("credential"),
    // Addresses.
    Format {
        row: &EMAIL,
        before: Before::Mailbox,
        variety: 0,
        ..stop("identifier_email", "@", &[part(c::LABEL, 1, 63), part(c::DOT, 1, 1), part(c::ALPHA, 2, 2)])
    },
];

/// The names of the hits that rows ending in `*` stand for, in the order of the table.
pub fn secret_formats() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().filter(|format| format.row.name.ends_with('*')).map(|format| format.hit)
}
