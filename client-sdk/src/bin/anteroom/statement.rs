//! `anteroom statement`: signed statements as files, for acts that more than one person signs.
//!
//! A file is DSSE JSON. Whoever is asked for a signature reads what the bytes say, adds it, and passes the file on; whoever adds the
//! last one hands it in.

use std::path::{Path, PathBuf};

use anteroom_proto::{
    names::Digest,
    rpc::SignedStatement,
    statement::{
        Payload,
        acts::{Acceptance, Offer},
        envelope,
        key_set::{KeyRole, KeySet},
        terms::Terms,
    },
};
use anteroom_sdk::{home::Home, signer::SharedSigner};
use clap::Subcommand;
use serde::Serialize;

use crate::{
    act,
    confirm::{Question, confirm, somebody},
    context::Ctx,
    explain::explain,
    fail::Fail,
    output::clean,
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom grant offer terms.json --sign-only offer.json     # the first of two signers
  anteroom statement show offer.json --terms terms.json      # what its signatures cover, in words
  anteroom statement sign offer.json --terms terms.json      # the second one, on another machine
  anteroom statement sign next.json --with root
  anteroom statement submit offer.json --attachment terms.json
  anteroom org rotate --replace signer --out next.json && anteroom statement submit next.json";

/// Statements in files.
#[derive(Subcommand)]
pub(crate) enum Statement {
    /// Show what a statement says and whose signatures it carries
    Show {
        /// The file; `-` reads standard input
        file: PathBuf,
        /// The terms that an offer or acceptance names by digest, to be shown in words
        #[arg(long, value_name = "FILE")]
        terms: Option<PathBuf>,
    },
    /// Add this folder's signature
    Sign {
        /// The file, replaced
        file: PathBuf,
        /// The key that signs: a role's name or a key's
        #[arg(long, value_name = "NAME", default_value = "signer")]
        with: String,
        /// The terms that an offer or acceptance names by digest; at a terminal they are shown in words first
        #[arg(long, value_name = "FILE")]
        terms: Option<PathBuf>,
        /// Do not ask; nobody is asked either where standard input is no terminal
        #[arg(long)]
        yes: bool,
    },
    /// Hand it in
    Submit {
        /// The file
        file: PathBuf,
        /// What the statement names by digest: the terms of an offer, the manifest of a build
        #[arg(long, value_name = "FILE")]
        attachment: Option<PathBuf>,
    },
}

/// A statement as shown.
#[derive(Serialize)]
struct Shown {
    /// Media type of the payload.
    payload_type: String,
    /// SHA-256 of the payload.
    digest: Digest,
    /// The payload, if it is JSON.
    payload: Option<serde_json::Value>,
    /// The terms that it names, if they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<Terms>,
    /// Whose signatures it carries.
    signatures: Vec<Signature>,
}

/// A signature as shown.
#[derive(Serialize)]
struct Signature {
    /// Short name of the key.
    key: String,
    /// The role it has in this organisation's key set and whether it holds, or that it is another's.
    by: String,
}

pub(crate) async fn run(ctx: &Ctx, verb: Statement) -> Result<(), Fail> {
    match verb {
        Statement::Show { file, terms } => {
            let statement = read(ctx, &file)?;
            let named = terms.map(|path| named_terms(ctx, &statement, &path)).transpose()?;
            show(ctx, &statement, named.map(|(terms, _)| terms))
        }
        Statement::Sign { file, with, terms, yes } => {
            let home = ctx.home()?;
            let mut statement = read(ctx, &file)?;
            let named = terms.map(|path| named_terms(ctx, &statement, &path)).transpose()?;
            if let Some((terms, digest)) = named.as_ref().filter(|_| !yes && somebody()) {
                confirm(&Question {
                    terms,
                    digest: *digest,
                    before: "The statement names these terms.",
                    word: "sign",
                })?;
            }
            envelope::add_signature(&mut statement, &home.signer(&with)?)
                .map_err(|error| Fail::Local(error.to_string()))?;
            home.keep_statement(&statement)?;
            write(&file, &statement)?;
            show(ctx, &statement, None)
        }
        Statement::Submit { file, attachment } => submit(ctx, &read(ctx, &file)?, attachment.as_deref()).await,
    }
}

/// Signs a payload with a key of this folder and leaves the statement in a file, for others to sign.
pub(crate) fn leave<P: Payload>(ctx: &Ctx, payload: &P, signer: &SharedSigner, file: &Path) -> Result<(), Fail> {
    let statement = envelope::sign_json(payload, &[signer]).map_err(|error| Fail::Local(error.to_string()))?;
    keep(ctx, &statement, file)
}

/// Leaves a signed statement in a file that is not there yet.
pub(crate) fn keep(ctx: &Ctx, statement: &SignedStatement, file: &Path) -> Result<(), Fail> {
    if file.exists() {
        return Err(Fail::Usage(format!("`{}` is there already; name another file", file.display())));
    }
    ctx.home()?.keep_statement(statement)?;
    write(file, statement)?;
    ctx.out.note(&format!("signed, not sent; more signatures: `anteroom statement sign {}`", file.display()));
    show(ctx, statement, None)
}

async fn submit(ctx: &Ctx, statement: &SignedStatement, attachment: Option<&Path>) -> Result<(), Fail> {
    let home = ctx.home()?;
    let attachment = attachment.map(|path| json(ctx, path)).transpose()?.unwrap_or_default();
    let mut organisation = home.organisation().await?;
    let mut subject = Digest::of(&statement.payload).to_string();
    if let Ok(offer) = envelope::read_json::<Offer>(statement) {
        let terms = Terms::parse(&attachment).map_err(|error| {
            Fail::Usage(format!("an offer goes with its terms, `--attachment terms.json`: {error}"))
        })?;
        home.pins_for(&terms)?;
        home.keep_terms(&attachment)?;
        organisation.learn_grant(offer.grant, &terms.nonce);
        subject = offer.grant.to_string();
    } else if let Some(grant) = grant_of(statement) {
        act::know(&home, &mut organisation, grant).await;
        subject = grant.to_string();
    }
    let recorded = organisation.submit(statement.clone(), attachment).await?;
    if let Ok(set) = envelope::read_json::<KeySet>(statement)
        && set.org == *home.org()?
    {
        let set = home.adopt_key_set(statement)?;
        ctx.out.note(&format!(
            "key set version {} is in force; its fingerprint is {}: tell the other sides",
            set.version,
            home.fingerprint()?
        ));
    }
    act::show(ctx, &home, "submit", &subject, &recorded)
}

/// The grant that a statement is about, if it names one.
fn grant_of(statement: &SignedStatement) -> Option<anteroom_proto::names::GrantId> {
    #[derive(serde::Deserialize)]
    struct Names {
        grant: anteroom_proto::names::GrantId,
    }
    serde_json::from_slice::<Names>(&statement.payload).ok().map(|names| names.grant)
}

/// The terms that an offer or an acceptance names.
fn terms_of(statement: &SignedStatement) -> Option<Digest> {
    let offered = envelope::read_json::<Offer>(statement).map(|offer| offer.terms);
    offered.or_else(|_| envelope::read_json::<Acceptance>(statement).map(|acceptance| acceptance.terms)).ok()
}

/// Terms from a file, which must be those that the statement names.
fn named_terms(ctx: &Ctx, statement: &SignedStatement, path: &Path) -> Result<(Terms, Digest), Fail> {
    let named = terms_of(statement)
        .ok_or_else(|| Fail::Usage("this statement names no terms: it is no offer and no acceptance".to_owned()))?;
    let bytes = json(ctx, path)?;
    if Digest::of(&bytes) != named {
        let text =
            format!("the statement names terms with SHA-256 {named}, `{}` has {}", path.display(), Digest::of(&bytes));
        return Err(Fail::Verification(text));
    }
    Ok((Terms::parse(&bytes)?, named))
}

fn show(ctx: &Ctx, statement: &SignedStatement, terms: Option<Terms>) -> Result<(), Fail> {
    let home: Option<Home> = ctx.home().ok();
    let set = home.as_ref().and_then(|home| home.key_set().ok());
    let signatures = statement.signatures.iter().map(|signature| {
        let held = set.iter().flat_map(|set| &set.keys).find(|held| held.key.id().as_slice() == signature.key_id);
        let by = match held {
            Some(held) if envelope::verify_by(statement, &held.key).is_ok() => format!("{}, holds", held.role.as_str()),
            Some(held) => format!("{}, does NOT hold", held.role.as_str()),
            None => "a key that is not in this organisation's key set".to_owned(),
        };
        Signature { key: data_encoding::HEXLOWER.encode(&signature.key_id), by }
    });
    let shown = Shown {
        payload_type: statement.payload_type.clone(),
        digest: Digest::of(&statement.payload),
        payload: serde_json::from_slice(&statement.payload).ok(),
        terms,
        signatures: signatures.collect(),
    };
    let mut pairs =
        vec![("type".to_owned(), clean(&shown.payload_type)), ("digest".to_owned(), shown.digest.to_string())];
    for signature in &shown.signatures {
        pairs.push((format!("signature {}", signature.key), signature.by.clone()));
    }
    if let Some(set) = &set {
        let needed = if statement.payload_type == KeySet::TYPE { set.threshold.root } else { set.threshold.signer };
        let role = if statement.payload_type == KeySet::TYPE { KeyRole::Root } else { KeyRole::Signer };
        pairs.push(("signatures needed".to_owned(), format!("{needed} {}", role.as_str())));
    }
    if let Some(serde_json::Value::Object(fields)) = &shown.payload {
        for (name, value) in fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            pairs.push((clean(name), clean(&text)));
        }
    }
    pairs.extend(shown.terms.iter().flat_map(explain));
    ctx.out.told(&pairs, &shown)
}

/// The bytes of a JSON file. A text file ends in a newline; what is signed is the JSON alone.
pub(crate) fn json(ctx: &Ctx, path: &Path) -> Result<Vec<u8>, Fail> {
    let mut bytes = ctx.read(path)?;
    while bytes.last().is_some_and(u8::is_ascii_whitespace) {
        bytes.pop();
    }
    Ok(bytes)
}

fn read(ctx: &Ctx, path: &Path) -> Result<SignedStatement, Fail> {
    let text = ctx.read_text(path)?;
    envelope::from_file(&text).map_err(|error| Fail::Usage(format!("`{}` is no statement: {error}", path.display())))
}

fn write(path: &Path, statement: &SignedStatement) -> Result<(), Fail> {
    let text = envelope::to_file(statement).map_err(|error| Fail::Local(error.to_string()))?;
    Ok(std::fs::write(path, text)?)
}
