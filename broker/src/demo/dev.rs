//! The operator's throw-away broker: one process, seeded parties, export lines, and a warning.

use std::io::Write as _;

use anteroom_sdk::connector::generator::{Generator, Pace};

use super::{Cast, DemoError, DevArgs, cast};

const WARNING: &str = "\
================================================================================
 WARNING: a throw-away broker for trying things out. Every party's keys are in one
 folder on this machine and fingerprints were pinned by this process. Nothing that
 it records proves anything to anybody. Never use it for a real model.
================================================================================";

pub(super) async fn run(args: DevArgs) -> Result<(), DemoError> {
    let dir = args.dir;
    let file = |source| DemoError::File { path: dir.clone(), source };
    std::fs::create_dir_all(&dir).map_err(file)?;
    let dir = dir.canonicalize().map_err(file)?;
    let fresh = !dir.join("operator").exists();
    let running = cast::start_broker(&dir, args.port).await?;
    let addresses = running.addresses();
    let log_key = running.log_key().to_owned();
    let cast =
        if fresh { Cast::seed(&dir, addresses, &log_key).await? } else { Cast::open(&dir, addresses, &log_key)? };
    let generator = Generator::start(Pace::default()).await;
    let generator = generator.map_err(|source| DemoError::File { path: dir.clone(), source })?;
    let upstream = dir.join("upstream");
    std::fs::write(&upstream, format!("{}\n", generator.base_url()))
        .map_err(|source| DemoError::File { path: upstream, source })?;
    let mut out = std::io::stdout().lock();
    // Whoever started this may not read along; the broker runs all the same.
    let _ = writeln!(out, "{}", text(&cast, generator.base_url()));
    let _ = out.flush();
    drop(out);
    let switch = running.switch();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            switch.drain();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            switch.stop();
        }
    });
    match running.ended().await {
        crate::boot::Ended::Fatal(why) | crate::boot::Ended::Contradicted(why) => Err(DemoError::Story(why)),
        crate::boot::Ended::Orderly { .. } => Ok(()),
    }
}

fn text(cast: &Cast, upstream: &str) -> String {
    let dir = cast.dir().display();
    let addresses = cast.addresses();
    format!(
        "{WARNING}\n\n\
         broker      {}   (enrolment {}, operations http://{})\n\
         log key     {}\n\
         model       line `{}`, build registered; a small text generator serves at {upstream}\n\n\
         The lab's terminal:\n\
         \x20 export ANTEROOM_HOME={dir}/lab-a\n\
         The agency's terminal:\n\
         \x20 export ANTEROOM_HOME={dir}/agency-a\n\
         The auditor's terminal:\n\
         \x20 export ANTEROOM_HOME={dir}/oversight-a\n\n\
         There is no grant yet. The README's quick start goes on from here; Ctrl-C drains, a second one stops.",
        addresses.programme,
        addresses.enrolment,
        addresses.ops,
        cast.log_key(),
        cast::LINE,
    )
}
