//! `anteroom model`: builds of a model line.

use std::path::PathBuf;

use anteroom_proto::{
    names::{Digest, GrantId, ModelLine, Variant},
    rpc::{GrantSummary, ListModelsRequest, ModelSummary, directory_client::DirectoryClient},
    statement::{
        key_set::KeyRole,
        model::{Manifest, NamedDigest},
        terms::Features,
    },
    time::At,
};
use anteroom_sdk::{
    channel::MESSAGE_BYTES_MAX,
    home::{Home, Use},
};
use clap::Subcommand;

use crate::{
    act::{self, hex},
    context::Ctx,
    fail::Fail,
    output::{When, view},
    succeed::{Succeed, succeed},
};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom model template --line reading-room --build 2026-11-rc2 --file weights=model.safetensors > manifest.json
  anteroom model register manifest.json
  anteroom model list
  anteroom model show DIGEST > manifest.json
  anteroom model succeed GRANT --manifest new.json --reason 'mends the tokenizer'         # from when the agency countersigns
  anteroom model succeed GRANT --manifest new.json --at 2026-12-01T08:00:00Z --reason 'mends a safeguard'   # cuts open calls
  anteroom lab serve --line reading-room --manifest new.json --upstream URL               # beside the one before

A new build joins its line and the line's running clock.";

/// Builds of a model line.
#[derive(Subcommand)]
pub(crate) enum Model {
    /// Register a build from its manifest; it follows the newest build of its line
    Register {
        /// The manifest, JSON
        manifest: PathBuf,
        /// Digest of the build that it follows [default: the newest of its line]
        #[arg(long, value_name = "DIGEST")]
        supersedes: Option<Digest>,
    },
    /// Offer that a newer build take the place of one that a grant lends
    Succeed(Succeed),
    /// List builds of this organisation and of its grants
    List,
    /// Print a registered build's manifest, byte for byte
    Show {
        /// Digest of the manifest, or enough of its beginning
        digest: String,
    },
    /// Print a manifest to start from
    Template {
        /// The model line
        #[arg(long)]
        line: ModelLine,
        /// The lab's name for the build
        #[arg(long)]
        build: String,
        /// A part by the SHA-256 of its file
        #[arg(long = "file", value_name = "NAME=PATH")]
        files: Vec<String>,
        /// A part by its SHA-256
        #[arg(long = "digest", value_name = "NAME=SHA256")]
        digests: Vec<String>,
        /// Variants that it serves
        #[arg(long = "variant", default_value = "standard")]
        variants: Vec<Variant>,
    },
}

view! {
    /// A registered build.
    ModelRow {
        /// The line.
        line: String,
        /// The lab's name for the build.
        build: String,
        /// Digest of its manifest.
        manifest: String,
        /// Variants that it serves.
        variants: Vec<String>,
        /// The lab.
        lab: String,
        /// When it was registered.
        registered: When,
        /// Grants in force whose new calls go to it at this moment, on the broker's word.
        answers: Vec<String>,
    }
}

pub(crate) async fn run(ctx: &Ctx, verb: Model) -> Result<(), Fail> {
    match verb {
        Model::Register { manifest, supersedes } => {
            let home = ctx.home()?;
            let bytes = ctx.read(&manifest)?;
            let read = Manifest::parse(&bytes)?;
            let digest = Digest::of(&bytes);
            let supersedes = match supersedes {
                Some(digest) => Some(digest),
                None => before(&list(&home).await?, &read, digest),
            };
            let signers = [home.signer(KeyRole::Signer.as_str())?];
            let recorded = home.lab().await?.register_model(bytes, supersedes, &signers).await?;
            act::show(ctx, &home, "register", &digest.to_string(), &recorded)
        }
        Model::Succeed(args) => succeed(ctx, args).await,
        Model::List => {
            let home = ctx.home()?;
            let grants = home.grants(&home.channel(Use::Act).await?).await?;
            let rows = list(&home).await?.iter().map(|model| row(model, &grants)).collect::<Vec<_>>();
            ctx.out.rows(&rows)
        }
        Model::Show { digest } => {
            let home = ctx.home()?;
            let models = list(&home).await?;
            let mut found = models.iter().filter(|model| hex(&model.manifest_digest).starts_with(&digest));
            match (found.next(), found.next()) {
                (Some(model), None) if Digest::of(&model.manifest).as_bytes() == model.manifest_digest.as_slice() => {
                    ctx.out.raw(&model.manifest)
                }
                (Some(_), None) => Err(Fail::Verification("the manifest is not what its digest says".to_owned())),
                (Some(_), Some(_)) => Err(Fail::Usage(format!("more than one digest begins with `{digest}`"))),
                (None, _) => Err(Fail::Usage(format!("no build here has a digest that begins with `{digest}`"))),
            }
        }
        Model::Template { line, build, files, digests, variants } => {
            let lab = ctx.home()?.org()?.clone();
            let digests = parts(&files, &digests)?;
            let features = Features { chat: true, streaming: true, n: 1, ..Features::default() };
            let manifest = Manifest { lab, line, build, digests, variants, features };
            let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Fail::Local(error.to_string()))?;
            Manifest::parse(&text)?;
            ctx.out.raw(&text)?;
            ctx.out.raw(b"\n")
        }
    }
}

/// The builds that the broker lists.
pub(crate) async fn list(home: &Home) -> Result<Vec<ModelSummary>, Fail> {
    let channel = home.channel(Use::Act).await?;
    let mut client = DirectoryClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Ok(client.list_models(ListModelsRequest {}).await?.into_inner().models)
}

/// The newest build of a line in what was listed.
pub(crate) fn newest<'m>(models: &'m [ModelSummary], lab: &str, line: &ModelLine) -> Option<&'m ModelSummary> {
    let of_line = models.iter().filter(|model| model.lab == lab && model.line == line.as_str());
    of_line.max_by_key(|model| model.registered_ms)
}

/// The build that this one follows: the newest other one, unless this one is registered already, which then repeats.
pub(crate) fn before(models: &[ModelSummary], manifest: &Manifest, digest: Digest) -> Option<Digest> {
    let mut of_line: Vec<_> = models
        .iter()
        .filter(|model| model.lab == manifest.lab.as_str() && model.line == manifest.line.as_str())
        .collect();
    of_line.sort_by_key(|model| model.registered_ms);
    let held = of_line.iter().position(|model| model.manifest_digest == digest.as_bytes());
    let before = held.map_or_else(|| of_line.last(), |held| held.checked_sub(1).and_then(|at| of_line.get(at)));
    before.and_then(|model| Digest::from_slice(&model.manifest_digest).ok())
}

fn row(model: &ModelSummary, grants: &[GrantSummary]) -> ModelRow {
    let manifest = Manifest::parse(&model.manifest).ok();
    let variants = manifest.iter().flat_map(|manifest| manifest.variants.iter().map(ToString::to_string));
    let in_force = |grant: &&GrantSummary| matches!(grant.phase.as_str(), "accepted" | "active" | "paused");
    let of_build = grants.iter().filter(in_force).filter(|grant| grant.builds.contains(&model.manifest_digest));
    let answers = of_build.map(|grant| GrantId::from_slice(&grant.grant));
    ModelRow {
        line: model.line.clone(),
        build: manifest.as_ref().map(|manifest| manifest.build.clone()).unwrap_or_default(),
        manifest: hex(&model.manifest_digest),
        variants: variants.collect(),
        lab: model.lab.clone(),
        registered: At::clamped(model.registered_ms).into(),
        answers: answers.map(|id| id.map_or_else(|error| error.to_string(), |id| id.to_string())).collect(),
    }
}

fn parts(files: &[String], digests: &[String]) -> Result<Vec<NamedDigest>, Fail> {
    let split = |text: &str| {
        let parts = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        parts.filter(|(name, _)| !name.is_empty()).ok_or_else(|| Fail::Usage(format!("`{text}` is not NAME=VALUE")))
    };
    let mut parts = Vec::new();
    for text in files {
        let (name, path) = split(text)?;
        parts.push(NamedDigest { name, sha256: digest_of_file(&path)? });
    }
    for text in digests {
        let (name, value) = split(text)?;
        let sha256 = Digest::parse(&value).map_err(|error| Fail::Usage(error.to_string()))?;
        parts.push(NamedDigest { name, sha256 });
    }
    if parts.is_empty() {
        return Err(Fail::Usage("name the build's parts with `--file NAME=PATH` or `--digest NAME=SHA256`".to_owned()));
    }
    Ok(parts)
}

/// Weights do not fit into memory, so a file is read in pieces.
fn digest_of_file(path: &str) -> Result<Digest, Fail> {
    use std::io::Read as _;
    let failed = |why| anteroom_sdk::home::HomeError::Io { path: path.into(), why };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece).map_err(failed)?;
        match piece.get(..read) {
            Some([]) | None => break,
            Some(bytes) => context.update(bytes),
        }
    }
    Digest::from_slice(context.finish().as_ref()).map_err(|error| Fail::Local(error.to_string()))
}
