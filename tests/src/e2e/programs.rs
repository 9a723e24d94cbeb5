//! The programs under test: the ones beside this test's own executable, brought up to date by cargo first.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The broker's program.
#[must_use]
pub fn broker() -> &'static Path {
    &programs().broker
}

/// The parties' program.
#[must_use]
pub fn anteroom() -> &'static Path {
    &programs().anteroom
}

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The folder that cargo builds into.
#[must_use]
pub fn target() -> PathBuf {
    folder().parent().map(Path::to_owned).unwrap_or_default()
}

struct Programs {
    broker: PathBuf,
    anteroom: PathBuf,
}

/// Where this profile's programs are.
fn folder() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    own.parent().and_then(Path::parent).expect("tests are built into `deps`").to_owned()
}

fn programs() -> &'static Programs {
    static MADE: OnceLock<Programs> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = folder();
        // A program left from before a change would test what is gone. The whole workspace is named so that features are the same
        // as in the build of the tests, and nothing is built twice.
        if let Some(cargo) = std::env::var_os("CARGO") {
            let mut command = Command::new(cargo);
            command.current_dir(workspace()).args(["build", "--quiet", "--locked", "--workspace"]);
            command.args(["--bin", "anteroom-broker", "--bin", "anteroom"]);
            // What cargo tells a test about its own package would reach build scripts that watch these names (ring's does), and
            // everything above them would be built anew each time the two kinds of build alternate.
            for (name, _) in std::env::vars_os() {
                let of_package = name.to_str().is_some_and(|name| {
                    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
                        .iter()
                        .any(|prefix| name.starts_with(prefix))
                });
                if of_package {
                    command.env_remove(name);
                }
            }
            if folder.file_name().is_some_and(|name| name == "release") {
                command.arg("--release");
            }
            let built = command.status().expect("cargo can be started");
            assert!(built.success(), "the programs under test cannot be built");
        }
        let program = |name: &str| {
            let path = folder.join(name);
            assert!(path.is_file(), "`{}` is missing: build the workspace first", path.display());
            path
        };
        Programs { broker: program("anteroom-broker"), anteroom: program("anteroom") }
    })
}
