//! `anteroom audit controls`: which controls on auditing this software meets, and where.

use anteroom_sdk::{controls, system};
use clap::{Args, ValueEnum};

use crate::{
    context::Ctx,
    fail::Fail,
    output::{Format, view},
};

/// Shows the controls.
#[derive(Args, Debug)]
pub(crate) struct Controls {
    /// As a document of this kind, in place of what `--format` says
    #[arg(long = "as", value_enum)]
    shape: Option<ControlsShape>,
}

/// What kind of document.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ControlsShape {
    /// A component definition of OSCAL 1.1, as JSON
    Oscal,
}

view! {
    /// A control in a table.
    ControlRow {
        /// Its identifier.
        control: String,
        /// What it is called.
        title: String,
        /// How many kinds of records bear on it.
        kinds: usize,
        /// How many fields of records do.
        fields: usize,
        /// How many refusals enforce it.
        codes: usize,
        /// Commands that show it.
        commands: String,
    }
}

pub(crate) fn run(ctx: &Ctx, args: &Controls) -> Result<(), Fail> {
    if args.shape == Some(ControlsShape::Oscal) {
        let definition = controls::oscal::component_definition(system::now());
        let text = serde_json::to_string_pretty(&definition).map_err(|error| Fail::Local(error.to_string()))?;
        return ctx.out.line(&text);
    }
    let controls = controls::controls();
    if ctx.out.format() != Format::Table {
        return ctx.out.values(&controls);
    }
    let rows = controls.iter().map(|control| ControlRow {
        control: control.id.to_owned(),
        title: control.title.to_owned(),
        kinds: control.kinds.len(),
        fields: control.fields.len(),
        codes: control.codes.len(),
        commands: control.commands.join(", "),
    });
    ctx.out.rows(&rows.collect::<Vec<_>>())?;
    for control in &controls {
        ctx.out.line(&format!("\n{}  {}\n  {}\n  Left: {}", control.id, control.title, control.met, control.left))?;
    }
    Ok(())
}
