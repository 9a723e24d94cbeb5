//! `anteroom org contacts` and `anteroom org notices`: where this organisation is told, and what it was told.
//!
//! Both read this organisation's own records, each proven by the log; nothing rests on the broker's word.

use std::path::{Path, PathBuf};

use anteroom_policy::event::{Entered, Event};
use anteroom_proto::{
    ledger::scope::Scope,
    names::{Digest, GrantId},
    statement::{
        contacts::{Contact, Contacts},
        key_set::{KeyRole, OrgKind},
        parse_json,
    },
};
use anteroom_sdk::home::Home;
use clap::Subcommand;

use crate::{
    act,
    audit::{entered, tag_key},
    context::Ctx,
    fail::Fail,
    output::{When, view},
};

/// Largest file of contacts.
const FILE_BYTES_MAX: u64 = 48 * 1024;

/// Where this organisation is told that something waits for it or ends.
#[derive(Subcommand)]
pub(crate) enum ContactsVerb {
    /// Sign and hand in a whole list, which takes the place of the one in force
    #[command(after_help = "The file is a list such as
  [{\"id\": \"duty\", \"to\": \"mailto:duty@lab.example\"},
   {\"id\": \"desk\", \"to\": \"https://hooks.lab.example/anteroom\", \"notices\": [\"paused\", \"ends_in_24h\"]}]
Without `notices` a contact is told of everything. `[]` ends all notices.")]
    Set {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show the list in force
    Show,
}

view! {
    /// A contact.
    ContactRow {
        /// What the organisation calls it.
        id: String,
        /// Where notices go.
        to: String,
        /// Of what it is told.
        notices: String,
    }
}

view! {
    /// What became of a notice.
    NoticeRow {
        /// When that was recorded.
        at: When,
        /// What it was about.
        about: String,
        /// The grant, if it was about one.
        grant: String,
        /// When it came up.
        due: When,
        /// Contacts that took it.
        delivered: String,
        /// Contacts that did not.
        failed: String,
        /// How often delivery was tried.
        attempts: u32,
        /// Its identifier, which the message carries, too.
        notice: String,
        /// Index of the record.
        record: u64,
    }
}

pub(crate) async fn run(ctx: &Ctx, verb: ContactsVerb) -> Result<(), Fail> {
    let home = ctx.home()?;
    match verb {
        ContactsVerb::Set { file } => set(ctx, &home, &file).await,
        ContactsVerb::Show => {
            let standing = standing(&home).await?;
            let contacts = standing.map_or_else(Vec::new, |(contacts, _)| contacts.contacts);
            let rows: Vec<ContactRow> = contacts.iter().map(row).collect();
            ctx.out.rows(&rows)
        }
    }
}

async fn set(ctx: &Ctx, home: &Home, file: &Path) -> Result<(), Fail> {
    let wrong = |why: String| Fail::Usage(format!("`{}`: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(wrong(format!("it has {size} bytes, more than {FILE_BYTES_MAX}")));
    }
    let bytes = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let contacts: Vec<Contact> = parse_json(&bytes).map_err(|error| wrong(error.to_string()))?;
    let previous = standing(home).await?.map(|(_, digest)| digest);
    let act = Contacts { by: home.org()?.clone(), contacts, previous };
    act.check().map_err(|error| wrong(error.to_string()))?;
    let role = if home.settings().kind == Some(OrgKind::Operator) { KeyRole::Root } else { KeyRole::Signer };
    let count = act.contacts.len();
    let signed = home.sign(&act, &home.signer(role.as_str())?)?;
    let recorded = home.organisation().await?.submit(signed, Vec::new()).await?;
    act::show(ctx, home, "contacts", &count.to_string(), &recorded)
}

/// What was sent to this organisation's contacts, and what became of it.
pub(crate) async fn notices(ctx: &Ctx, only: Option<GrantId>) -> Result<(), Fail> {
    let home = ctx.home()?;
    let mut rows = Vec::new();
    each(&home, |entered| {
        let Event::NoticeSettled(settled) = &entered.event else { return };
        if only.is_some() && settled.grant != only {
            return;
        }
        let names =
            |ids: &[anteroom_proto::names::ContactId]| ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" ");
        rows.push(NoticeRow {
            at: entered.at.into(),
            about: settled.kind.as_str().to_owned(),
            grant: settled.grant.map_or_else(String::new, |grant| grant.to_string()),
            due: settled.due.into(),
            delivered: names(&settled.delivered),
            failed: names(&settled.failed),
            attempts: settled.attempts,
            notice: settled.notice.clone(),
            record: entered.index,
        });
    })
    .await?;
    ctx.out.rows(&rows)
}

/// The list in force, with the digest that the next one names.
async fn standing(home: &Home) -> Result<Option<(Contacts, Digest)>, Fail> {
    let mut standing = None;
    each(home, |entered| {
        if let Event::ContactsSet(set) = &entered.event {
            standing = Some((set.contacts.clone(), Digest::of(&set.statement.payload)));
        }
    })
    .await?;
    Ok(standing)
}

/// Goes through this organisation's own records, each proven by the log.
async fn each(home: &Home, mut see: impl FnMut(&Entered)) -> Result<(), Fail> {
    let scope = Scope::Organisation(home.org()?.clone());
    let tag_key = tag_key(home, &scope, None).await?;
    let mut reading = home.auditor().await?.read(scope, tag_key, false).await?;
    while let Some(record) = reading.next().await? {
        if let Some(entered) = entered(&record)? {
            see(&entered);
        }
    }
    Ok(())
}

fn row(contact: &Contact) -> ContactRow {
    let kinds = contact.notices.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ");
    ContactRow {
        id: contact.id.to_string(),
        to: contact.to.text(),
        notices: if kinds.is_empty() { "all".to_owned() } else { kinds },
    }
}
