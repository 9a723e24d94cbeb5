//! Instructions of the work that every call comes to, counted by `valgrind --tool=callgrind`: they say what a change costs on a machine
//! whose clock says nothing.
//!
//! `examples/instructions` runs each case in a process of its own under valgrind and holds what it counted against
//! `tests/bench/instructions.json`. Valgrind's processor has features of its own, whatever the machine below it: the counts are those of
//! the code that `ring` and others choose there.

mod cases;
mod limits;

use std::{
    path::Path,
    process::{Command, Stdio},
};

pub use self::{
    cases::{CASES, Case},
    limits::{Limits, Verdict},
};
use crate::decisions::Fallible;

/// Where counting goes on while it is on the stack, as valgrind reads it.
const COUNTED: &str = "*counted_by_callgrind*";
/// What valgrind calls the sum.
const SUM: &str = "Collected :";

/// Instructions of one unit of a case, counted in a process of its own: `program` with the case's name.
///
/// # Errors
/// There is no valgrind, or the case fails.
pub fn count(program: &Path, case: &Case) -> Fallible<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(format!("--toggle-collect={COUNTED}"));
    let output = command.arg(program).args(["--case", case.name]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run valgrind (Debian's package `valgrind`): {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("`{}` failed under valgrind:\n{told}", case.name).into());
    }
    let sum = told.lines().find_map(|line| line.split_once(SUM)).ok_or("valgrind counted nothing")?.1;
    let sum: u64 = sum.trim().replace(',', "").parse()?;
    if sum == 0 {
        return Err(
            format!("valgrind counted nothing in `{}`: has `counted_by_callgrind` another name?", case.name).into()
        );
    }
    Ok(sum / case.units)
}
