//! `anteroom audit mirror`, `prove` and `disclose`, and what `verify` and `replay` do with a mirror: nothing here but `mirror` itself
//! asks a broker.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anteroom_policy::replay::Replay;
use anteroom_proto::{
    ledger::{
        checkpoint::LogTrust,
        note::VerifierKey,
        scope::{Scope, TagKey},
    },
    names::{CallId, Digest, GrantId},
    rpc::ProvenRecord,
    time::At,
};
use anteroom_sdk::{
    auditor::Auditor,
    error::Error,
    home::{Home, HomeError, Use},
    mirror::{
        Mirror, MirrorError,
        check::{self, Demands},
        prove, set, take,
    },
    verify::scope::TagKeys,
};
use clap::Args;

use crate::{
    audit::{entered, tag_key},
    context::Ctx,
    fail::Fail,
    output::{When, clean, view},
    progress::Bar,
    receipt, replay,
};

/// Whom an offline check believes.
#[derive(Args, Debug)]
pub(crate) struct Trust {
    /// The log's key, where no party's folder has it pinned
    #[arg(long, value_name = "VKEY")]
    log_key: Option<VerifierKey>,
    /// Keys of witnesses that cosign the log's checkpoints
    #[arg(long = "witness", value_name = "VKEY")]
    witnesses: Vec<VerifierKey>,
    /// How many of them must have cosigned [default: all that are named]
    #[arg(long, value_name = "N", requires = "witnesses")]
    quorum: Option<usize>,
}

impl Trust {
    /// Whom to believe, and what this party knows itself.
    pub(crate) fn demands(&self, ctx: &Ctx) -> Result<(Demands, Option<Home>), Fail> {
        let home = match (ctx.home(), &self.log_key) {
            (Ok(home), _) => Some(home),
            // A stranger has no folder, and needs none.
            (Err(Fail::Home(HomeError::Absent(_)) | Fail::Usage(_)), Some(_)) => None,
            (Err(fail), _) => return Err(fail),
        };
        let pinned = home.as_ref().map(Home::log_trust).transpose();
        let pinned = match (pinned, &self.log_key) {
            (Ok(Some(trust)), Some(key)) if !trust.knows(key) => {
                return Err(Fail::Usage("`--log-key` is another than the one pinned in this folder".to_owned()));
            }
            (Ok(Some(trust)), _) => trust,
            (_, Some(key)) => LogTrust::log_only(key.clone()).map_err(HomeError::from)?,
            (Err(error), None) => return Err(error.into()),
            (Ok(None), None) => return Err(HomeError::NoLogKey.into()),
        };
        let trust = if self.witnesses.is_empty() {
            pinned
        } else {
            let quorum = self.quorum.unwrap_or(self.witnesses.len());
            pinned.with_witnesses(self.witnesses.clone(), quorum).map_err(HomeError::from)?
        };
        let known = home.as_ref().map_or_else(|| Ok(TagKeys::default()), Home::tag_keys)?;
        let seen = match &home {
            Some(home) if home.pins()?.log.is_some() => home.seen_checkpoint()?,
            Some(_) | None => None,
        };
        let pins = home.as_ref().map(Home::fingerprints).transpose()?.unwrap_or_default();
        Ok((Demands { trust, known, seen, pins }, home))
    }
}

/// What is mirrored, and where to.
#[derive(Args)]
pub(crate) struct Take {
    /// The mirror's folder, made if there is none
    dir: PathBuf,
    /// With the records of these scopes
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// With the records of every scope that this reader may read and knows the nonce of
    #[arg(long, conflicts_with = "scopes")]
    own: bool,
    /// The nonce of the one scope named, where this folder does not know it
    #[arg(long, value_name = "HEX", requires = "scopes")]
    nonce: Option<Digest>,
    /// Go on as the log grows
    #[arg(long)]
    follow: bool,
    /// How often to look while following, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    #[command(flatten)]
    trust: Trust,
}

view! {
    /// A mirror as it stands.
    Mirrored {
        /// Its folder.
        mirror: String,
        /// Entries it had.
        before: u64,
        /// Entries it has.
        entries: u64,
        /// Their root.
        root: String,
        /// Witnesses known here that cosigned.
        witnesses: Vec<String>,
        /// Scopes with the number of their records.
        slices: Vec<String>,
        /// Grants whose dossier was fetched.
        dossiers: Vec<String>,
    }
}

view! {
    /// A mirror that holds.
    Held {
        /// Its folder.
        mirror: String,
        /// Entries of the log.
        entries: u64,
        /// Their root.
        root: String,
        /// Files of tiles and bundles, each computed again.
        files: u64,
        /// Witnesses that cosigned, of those named.
        witnesses: Vec<String>,
        /// Slices shown to be whole, with the number of their records.
        slices: Vec<String>,
        /// Grants whose dossier is here and says what the records say.
        dossiers: Vec<String>,
        /// What that shows.
        shown: String,
    }
}

view! {
    /// A record that a mirror proves.
    ProvenRow {
        /// Its kind.
        record: String,
        /// Its index in the log.
        index: u64,
        /// The broker's clock.
        at: When,
        /// Entries of the log that the proof is under.
        log_size: u64,
        /// Witnesses that cosigned, of those named.
        witnesses: Vec<String>,
        /// The proof's file.
        file: String,
    }
}

view! {
    /// A disclosed field.
    FieldRow {
        /// The record's index in the log.
        index: u64,
        /// The broker's clock.
        at: When,
        /// The record's kind.
        kind: String,
        /// The field.
        field: String,
        /// Its value.
        value: String,
    }
}

/// `audit mirror`.
pub(crate) async fn mirror(ctx: &Ctx, args: Take) -> Result<(), Fail> {
    let (demands, home) = args.trust.demands(ctx)?;
    let home = home.ok_or_else(|| Fail::Usage("mirroring needs this party's folder".to_owned()))?;
    let mut auditor = home.auditor().await?;
    let mirror = Mirror::at(&args.dir);
    let mut round = Round { ctx, home: &home, args: &args, quiet: 0, silent: false };
    round.go(&mut auditor, &mirror, &demands).await?;
    if !args.follow {
        return Ok(());
    }
    let mut clock = tokio::time::interval(Duration::from_secs(args.every));
    loop {
        clock.tick().await;
        // What one's own reading added to the log is not worth reading again.
        if auditor.checkpoint().await?.checkpoint().size() > round.quiet {
            round.go(&mut auditor, &mirror, &demands).await?;
        }
    }
}

/// Extends the folder's own mirror with everything that this reader may read.
pub(crate) async fn extend_own(ctx: &Ctx, home: &Home, dir: &Path, demands: &Demands) -> Result<(), Fail> {
    let trust = Trust { log_key: None, witnesses: Vec::new(), quorum: None };
    let args = Take { dir: dir.to_owned(), scopes: Vec::new(), own: true, nonce: None, follow: false, every: 5, trust };
    let mut auditor = home.auditor().await?;
    Round { ctx, home, args: &args, quiet: 0, silent: true }.go(&mut auditor, &Mirror::at(dir), demands).await
}

/// One run over the log.
struct Round<'a> {
    ctx: &'a Ctx,
    home: &'a Home,
    args: &'a Take,
    /// The log's size up to which nothing but this run's own reading happened.
    quiet: u64,
    /// Whether nothing is said about what was taken.
    silent: bool,
}

impl Round<'_> {
    async fn go(&mut self, auditor: &mut Auditor, mirror: &Mirror, demands: &Demands) -> Result<(), Fail> {
        let scopes = self.scopes(auditor, mirror, demands).await?;
        let mut bar = Bar::new();
        let taken = take::extend(mirror, auditor, &demands.trust, &scopes, &mut |progress| bar.show(progress)).await;
        bar.end();
        let taken = taken?;
        for (scope, why) in &taken.disposed {
            self.ctx.out.note(&format!("what is here of {scope} stays as it was: {}", clean(why)));
        }
        let dossiers = self.dossiers(mirror, demands, &scopes).await?;
        let checkpoint = taken.checkpoint.checkpoint();
        self.quiet = checkpoint.size() + scopes.len() as u64;
        if self.silent {
            return Ok(());
        }
        self.ctx.out.one(&Mirrored {
            mirror: mirror.dir().display().to_string(),
            before: taken.before,
            entries: checkpoint.size(),
            root: checkpoint.root().to_string(),
            witnesses: names_of(&taken.checkpoint),
            slices: taken.slices.iter().map(|(scope, records)| format!("{scope}:{records}")).collect(),
            dossiers,
        })
    }

    /// Fetches the dossiers of the grants among `scopes`, with `--own` or where one is here already. One that is no longer shown stays as
    /// it was.
    async fn dossiers(
        &self,
        mirror: &Mirror,
        demands: &Demands,
        scopes: &[(Scope, TagKey)],
    ) -> Result<Vec<String>, Fail> {
        let channel = self.home.channel(Use::Read).await?;
        let mut fetched = Vec::new();
        for (scope, _) in scopes {
            let Scope::Grant(grant) = scope else { continue };
            if !self.args.own && !mirror.has_dossier(*grant) {
                continue;
            }
            match self.home.fetch_dossier(&channel, *grant).await {
                Ok(dossier) => {
                    mirror.keep_dossier(*grant, &dossier, &demands.pins)?;
                    fetched.push(grant.to_string());
                }
                Err(HomeError::Sdk(Error::Refused(refused))) => {
                    self.ctx.out.note(&format!("no dossier of {grant} is shown: {}", clean(&refused.text)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(fetched)
    }

    /// The scopes to read, each with its key: those asked for, and those that are there already.
    async fn scopes(
        &self,
        auditor: &mut Auditor,
        mirror: &Mirror,
        demands: &Demands,
    ) -> Result<Vec<(Scope, TagKey)>, Fail> {
        let mut wanted = Vec::new();
        for scope in mirror.scopes()? {
            let key = mirror.tag_key(&scope, &demands.known)?;
            wanted.push((scope, key));
        }
        let mut add = |scope: Scope, key: TagKey| {
            if !wanted.iter().any(|(known, _)| *known == scope) {
                wanted.push((scope, key));
            }
        };
        for scope in &self.args.scopes {
            add(scope.clone(), tag_key(self.home, scope, self.args.nonce).await?);
        }
        if self.args.own {
            for summary in auditor.scopes().await? {
                let Ok(scope) = Scope::from_bytes(&summary.scope) else { continue };
                match tag_key(self.home, &scope, None).await {
                    Ok(key) => add(scope, key),
                    Err(_) => {
                        self.ctx.out.note(&format!("`{scope}` is left out: its nonce is not known in this folder"));
                    }
                }
            }
        }
        Ok(wanted)
    }
}

/// `audit verify --mirror`.
pub(crate) fn verify(ctx: &Ctx, dir: &Path, scopes: &[Scope], trust: &Trust) -> Result<(), Fail> {
    let (demands, _) = trust.demands(ctx)?;
    let mirror = Mirror::at(dir);
    let scopes = if scopes.is_empty() { None } else { Some(scopes) };
    let mut bar = Bar::new();
    let verified = check::verify(&mirror, &demands, scopes, &mut |progress| bar.show(progress), |_| Ok(()));
    bar.end();
    let verified = verified?;
    for slice in verified.slices().iter().filter(|slice| slice.beyond > 0 || slice.newer > 0) {
        ctx.out.note(&format!(
            "`{}`: {} records stand after the mirror's checkpoint and {} checkpoints are newer; the next `audit mirror` covers them",
            slice.scope, slice.beyond, slice.newer
        ));
    }
    for slice in verified.slices().iter().filter(|slice| slice.destroyed > 0) {
        ctx.out.note(&format!(
            "`{}`: its last {} records were destroyed on record before they were mirrored",
            slice.scope, slice.destroyed
        ));
    }
    for dossier in verified.dossiers().iter().filter(|dossier| !dossier.pinned) {
        ctx.out.note(&format!(
            "the dossier of {} rests on fingerprints that are not pinned here; compare them out of band",
            dossier.grant
        ));
    }
    let checkpoint = verified.checkpoint().checkpoint();
    ctx.out.one(&Held {
        mirror: dir.display().to_string(),
        entries: checkpoint.size(),
        root: checkpoint.root().to_string(),
        files: verified.tree().files,
        witnesses: names_of(verified.checkpoint()),
        slices: verified.slices().iter().map(|slice| format!("{}:{}", slice.scope, slice.records)).collect(),
        dossiers: verified.dossiers().iter().map(|dossier| dossier.grant.to_string()).collect(),
        shown: "every byte of the tree follows from the signed checkpoint, and each slice is all there is".to_owned(),
    })
}

/// `audit verify --set`.
pub(crate) fn verify_set(ctx: &Ctx, path: &Path, dir: Option<&Path>, trust: &Trust) -> Result<(), Fail> {
    let (demands, _) = trust.demands(ctx)?;
    let disclosed = set::verify(path, &demands.trust, &demands.known)?;
    let checkpoint = disclosed.checkpoint().checkpoint();
    let whole = match dir {
        None => "whether records followed is not known without a mirror",
        Some(dir) => {
            check::whole_set(&Mirror::at(dir), &demands, &disclosed, path)?;
            "no record of the scope was left out, as the mirror shows"
        }
    };
    ctx.out.note(&format!(
        "{} records of `{}` hold under a checkpoint of {} entries; {whole}",
        disclosed.records(),
        disclosed.scope(),
        checkpoint.size()
    ));
    let rows = disclosed.fields().iter().map(|field| FieldRow {
        index: field.index,
        at: At::clamped(field.at_ms).into(),
        kind: field.kind.to_owned(),
        field: field.field.to_owned(),
        value: field.value.clone(),
    });
    ctx.out.rows(&rows.collect::<Vec<_>>())
}

/// `audit replay --mirror`.
pub(crate) fn replay(ctx: &Ctx, dir: &Path, grant: GrantId, trust: &Trust) -> Result<(), Fail> {
    let (demands, _) = trust.demands(ctx)?;
    let mirror = Mirror::at(dir);
    let mut followed = mirror.scopes()?;
    followed.retain(|scope| match scope {
        // All of them: what one used counts for the others of a bounded line.
        Scope::Grant(_) | Scope::System | Scope::Organisation(_) | Scope::Roster(_) => true,
        // What somebody read decided nothing.
        Scope::Reads(_) => false,
    });
    if !followed.contains(&Scope::Grant(grant)) {
        return Err(MirrorError::NoSlice(Scope::Grant(grant)).into());
    }
    let mut replayed = Replay::of(grant);
    let mut unread = None;
    let mut bar = Bar::new();
    let verified = check::verify(&mirror, &demands, Some(&followed), &mut |progress| bar.show(progress), |record| {
        match entered(record) {
            Ok(entered) => {
                entered.iter().for_each(|entered| replayed.feed(entered));
                Ok(())
            }
            Err(fail) => {
                unread = Some(fail);
                Err(MirrorError::Interrupted)
            }
        }
    });
    bar.end();
    if let Some(fail) = unread {
        return Err(fail);
    }
    let verified = verified?;
    ctx.out.note(&format!("the mirror of {} entries holds", verified.tree().entries));
    let followed = followed.iter().map(ToString::to_string).collect();
    replay::show(ctx, grant, followed, Vec::new(), replayed)
}

/// `audit prove`.
pub(crate) fn prove(
    ctx: &Ctx,
    call: CallId,
    dir: &Path,
    receipts: &[PathBuf],
    out: &Path,
    trust: &Trust,
) -> Result<(), Fail> {
    let (demands, home) = trust.demands(ctx)?;
    let mirror = Mirror::at(dir);
    let mut shown: Vec<(String, ProvenRecord)> = Vec::new();
    for path in receipts {
        let what = path.display().to_string();
        shown.push((what.clone(), prove::read_proof(&what, &ctx.read(path)?)?));
    }
    if shown.is_empty()
        && let Some(home) = &home
        && let Some(kept) = receipt::kept(ctx, home, call)?
    {
        let records = kept.receipt.into_iter().flat_map(|receipt| receipt.admitted.into_iter().chain(receipt.finished));
        shown.extend(records.map(|proven| (format!("the receipt of `{call}`"), proven)));
    }
    if shown.is_empty() {
        let found = prove::find(&mirror, &demands, call)?;
        shown.extend(found.into_iter().map(|proven| (format!("the mirrored record of `{call}`"), proven)));
    }
    if shown.is_empty() {
        return Err(MirrorError::NoCall(call.to_string()).into());
    }
    let failed = |path: &Path, why| HomeError::Io { path: path.to_owned(), why };
    std::fs::create_dir_all(out).map_err(|why| failed(out, why))?;
    let mut rows = Vec::new();
    for (what, proven) in shown {
        let proven = prove::hold(&mirror, &demands, &what, &proven)?;
        if prove::call_of(&proven.record) != Some(call) {
            return Err(Fail::Verification(format!("{what} is not of `{call}`")));
        }
        let kind = proven.record.opened().spec().name;
        let name = kind.trim_start_matches("Call").to_lowercase();
        let file = out.join(format!("{call}.{name}.tlog-proof"));
        std::fs::write(&file, proven.proof.to_string()).map_err(|why| failed(&file, why))?;
        let header = proven.record.header();
        rows.push(ProvenRow {
            record: kind.to_owned(),
            index: header.index,
            at: At::clamped(header.at_ms).into(),
            log_size: proven.checkpoint.checkpoint().size(),
            witnesses: names_of(&proven.checkpoint),
            file: file.display().to_string(),
        });
    }
    ctx.out.rows(&rows)
}

pub(crate) fn names_of(checkpoint: &anteroom_proto::ledger::checkpoint::VerifiedCheckpoint) -> Vec<String> {
    checkpoint.cosigners().iter().map(|signer| signer.key().name().to_string()).collect()
}
