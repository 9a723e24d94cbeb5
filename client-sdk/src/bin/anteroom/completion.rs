//! `anteroom completion`: a script for a shell.

use clap::Args;
use clap_complete::Shell;

use crate::{context::Ctx, fail::Fail};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom completion bash > /etc/bash_completion.d/anteroom
  anteroom completion zsh > ~/.zfunc/_anteroom";

/// A completion script.
#[derive(Args)]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(ctx: &Ctx, args: &Completion) -> Result<(), Fail> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command(), "anteroom", &mut script);
    ctx.out.raw(&script)
}
