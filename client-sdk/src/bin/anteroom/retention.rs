//! `anteroom retention`: what has to be kept, and what the operator destroys.

use anteroom_proto::{
    ledger::scope::Scope,
    names::LockId,
    statement::{
        acts::{Disposition, DispositionAction, Hold, HoldRelease},
        key_set::{KeyRole, OrgKind},
    },
};
use anteroom_sdk::{error::Error, system};
use clap::Subcommand;

use crate::{act, context::Ctx, fail::Fail};

pub(crate) const EXAMPLES: &str = "Examples:
  anteroom retention hold GRANT --reason 'suit 7 of 2027'
  anteroom retention release HOLD --reason 'suit 7 is settled'
  anteroom retention dispose GRANT --schedule 'schedule 4, item 2'
  anteroom retention dispose roster/agency-a --schedule 'schedule 4, item 3' --keep

A hold is for parties of a scope, their overseers and the operator. A disposition is the operator's: it has the scope's key
destroyed, and says on its word that every copy of the key goes, too. `anteroom-broker retention` lists what is due.";

/// Holds and dispositions.
#[derive(Subcommand)]
pub(crate) enum Retention {
    /// Demand that nothing of a scope be destroyed
    Hold {
        /// A grant, `roster/ORG` or `reads/ORG`
        scope: Scope,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Give up a hold that this organisation set
    Release {
        /// The hold
        hold: LockId,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Have a scope destroyed for good, under the operator's written schedule
    Dispose {
        /// A grant, `roster/ORG` or `reads/ORG`
        scope: Scope,
        /// The schedule, as the broker's configuration names it
        #[arg(long)]
        schedule: String,
        /// Say that it is kept although its time is over
        #[arg(long)]
        keep: bool,
    },
}

pub(crate) async fn run(ctx: &Ctx, verb: Retention) -> Result<(), Fail> {
    let home = ctx.home()?;
    let mut organisation = home.organisation().await?;
    let by = home.org()?.clone();
    let (name, subject, statement) = match verb {
        Retention::Hold { scope, reason } => {
            let id = system::lock_id().map_err(Error::from)?;
            let hold = Hold { id, by, scope, reason };
            ("hold", id.to_string(), home.sign(&hold, &home.stop_signer()?)?)
        }
        Retention::Release { hold, reason } => {
            let role = if home.settings().kind == Some(OrgKind::Operator) { KeyRole::Root } else { KeyRole::Signer };
            let release = HoldRelease { hold, by, reason };
            ("release", hold.to_string(), home.sign(&release, &home.signer(role.as_str())?)?)
        }
        Retention::Dispose { scope, schedule, keep } => {
            let action = if keep { DispositionAction::Kept } else { DispositionAction::Destroyed };
            let subject = scope.to_string();
            let disposition = Disposition { by, scope, action, schedule, at_ms: system::now() };
            ("dispose", subject, home.sign(&disposition, &home.stop_signer()?)?)
        }
    };
    let recorded = organisation.submit(statement, Vec::new()).await?;
    act::show(ctx, &home, name, &subject, &recorded)
}
