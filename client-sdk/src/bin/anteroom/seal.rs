//! `anteroom lab seal`: a credential of a direct endpoint, sealed at rest.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anteroom_sdk::connector::{
    sealed::{self, SealError, SealingKey},
    upstream::ApiKey,
};
use clap::Args;

use crate::{context::Ctx, fail::Fail};

/// Seals a credential for one address.
#[derive(Args)]
pub(crate) struct Seal {
    /// The endpoint that it is for, exactly as `lab serve --upstream` will name it
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// A file that holds the credential; delete it afterwards
    #[arg(long, value_name = "FILE")]
    credential_file: PathBuf,
    /// The file with the sealing key, made if it is not there; keep it on another volume than the sealed credential
    #[arg(long, value_name = "FILE")]
    sealing_key: PathBuf,
    /// Where the sealed credential goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn seal(ctx: &Ctx, args: &Seal) -> Result<(), Fail> {
    let credential = ctx.read_text(&args.credential_file)?;
    let key = if args.sealing_key.exists() {
        SealingKey::parse(&ctx.read_text(&args.sealing_key)?).map_err(failed)?
    } else {
        let key = SealingKey::generate().map_err(failed)?;
        write_new(&args.sealing_key, &key.encode())?;
        ctx.out.note(&format!(
            "made the sealing key `{}`: whoever has both files has the credential",
            args.sealing_key.display()
        ));
        key
    };
    let text = sealed::seal(&key, &args.upstream, credential.trim()).map_err(failed)?;
    write_new(&args.out, &text)?;
    ctx.out.note(&format!("sealed for `{}` into `{}`", args.upstream, args.out.display()));
    Ok(())
}

/// Opens what was sealed.
pub(crate) fn open(ctx: &Ctx, upstream: &str, sealed_file: &Path, key_file: &Path) -> Result<ApiKey, Fail> {
    let key = SealingKey::parse(&ctx.read_text(key_file)?).map_err(failed)?;
    sealed::open(&key, upstream, &ctx.read_text(sealed_file)?).map_err(failed)
}

fn failed(error: SealError) -> Fail {
    Fail::Local(error.to_string())
}

/// Its owner's alone, and never in the place of another.
fn write_new(path: &Path, text: &str) -> Result<(), Fail> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|error| Fail::Local(format!("`{}`: {error}", path.display())))?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}
