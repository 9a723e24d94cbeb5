//! `anteroom audit disclose`: a set of chosen fields cut out of a mirrored scope.

use std::path::Path;

use anteroom_proto::ledger::scope::Scope;
use anteroom_sdk::mirror::{
    Mirror,
    disclose::{Choice, disclose},
};

use crate::{context::Ctx, fail::Fail, mirror::Trust, output::view};

view! {
    /// A set that was written.
    Cut {
        /// The file.
        set: String,
        /// The scope.
        scope: String,
        /// Its records, all of them.
        records: u64,
        /// Fields opened beside the headers.
        fields: u64,
    }
}

pub(crate) fn cut(
    ctx: &Ctx,
    dir: &Path,
    scope: &Scope,
    choice: &Choice,
    out: &Path,
    trust: &Trust,
) -> Result<(), Fail> {
    let (demands, _) = trust.demands(ctx)?;
    let written = disclose(&Mirror::at(dir), &demands, scope, choice, out)?;
    ctx.out.one(&Cut {
        set: out.display().to_string(),
        scope: scope.to_string(),
        records: written.records,
        fields: written.fields,
    })
}
