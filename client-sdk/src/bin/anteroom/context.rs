//! What every command has: the folder, where results go, and small readers of files.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anteroom_sdk::{
    channel::Address,
    credentials::Environment,
    home::{Home, HomeError},
};
use clap::Args;

use crate::{
    fail::Fail,
    output::{Format, Output},
};

/// Largest file or standard input that is read, in bytes: a call's largest body.
const INPUT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// This party's folder [default: ~/.anteroom]
    #[arg(long, global = true, value_name = "DIR", env = "ANTEROOM_HOME")]
    home: Option<PathBuf>,
    /// The broker, HOST:PORT, in place of the one in the folder
    #[arg(long, global = true, value_name = "ADDR", env = "ANTEROOM_ADDR")]
    addr: Option<String>,
    /// Roots of the broker's certificate, PEM, in place of the folder's
    #[arg(long, global = true, value_name = "FILE", env = "ANTEROOM_CA")]
    ca: Option<PathBuf>,
    /// Client certificate, PEM, in place of the folder's
    #[arg(long, global = true, value_name = "FILE", env = "ANTEROOM_CERT")]
    cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, global = true, value_name = "FILE", env = "ANTEROOM_KEY")]
    key: Option<PathBuf>,
    /// How results are written
    #[arg(long, global = true, value_name = "FORMAT", env = "ANTEROOM_FORMAT", default_value = "table")]
    format: Format,
}

/// One run of the command.
#[derive(Debug)]
pub(crate) struct Ctx {
    global: Global,
    pub(crate) out: Output,
}

impl Ctx {
    pub(crate) fn new(global: Global) -> Self {
        let out = Output::new(global.format);
        Self { global, out }
    }

    /// The folder, which must exist.
    pub(crate) fn home(&self) -> Result<Home, Fail> {
        self.with_overrides(Home::open(&self.dir()?)?)
    }

    /// The folder of one of several parties that a command plays.
    pub(crate) fn party(&self, dir: &Path) -> Result<Home, Fail> {
        if self.global.ca.is_some() || self.global.cert.is_some() || self.global.key.is_some() {
            return Err(Fail::Usage(
                "`--ca`, `--cert` and `--key` (or ANTEROOM_CA, ANTEROOM_CERT and ANTEROOM_KEY) are one party's, and this command \
                 plays two: leave them out"
                    .to_owned(),
            ));
        }
        let home = Home::open(dir)?;
        Ok(match &self.global.addr {
            Some(addr) => home.with_addr(addr),
            None => home,
        })
    }

    /// The folder, made if there is none.
    pub(crate) fn home_or_new(&self) -> Result<Home, Fail> {
        Ok(Home::open_or_create(&self.dir()?)?)
    }

    /// The broker's address as given on the command line or in the environment.
    pub(crate) fn addr(&self) -> Option<&str> {
        self.global.addr.as_deref()
    }

    fn dir(&self) -> Result<PathBuf, Fail> {
        if let Some(dir) = &self.global.home {
            return Ok(dir.clone());
        }
        let user = std::env::var_os("HOME").filter(|home| !home.is_empty());
        let user = user.ok_or_else(|| Fail::Usage("give this party's folder with `--home DIR`".to_owned()))?;
        Ok(Path::new(&user).join(".anteroom"))
    }

    fn with_overrides(&self, home: Home) -> Result<Home, Fail> {
        let home = match &self.global.addr {
            Some(addr) => home.with_addr(addr),
            None => home,
        };
        let files = (&self.global.ca, &self.global.cert, &self.global.key);
        match files {
            (None, None, None) => Ok(home),
            (Some(roots), Some(certificate), Some(key)) => {
                let address: Address = home.address()?;
                let environment =
                    Environment { certificate: certificate.clone(), key: key.clone(), roots: roots.clone(), address };
                Ok(home.with_environment(environment))
            }
            _ => Err(Fail::Usage(
                "`--ca`, `--cert` and `--key` (or ANTEROOM_CA, ANTEROOM_CERT and ANTEROOM_KEY) go together".to_owned(),
            )),
        }
    }

    /// Reads a file, or standard input for `-`.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, Fail> {
        let failed = |why| HomeError::Io { path: path.to_owned(), why };
        let mut bytes = Vec::new();
        if path == Path::new("-") {
            std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        } else {
            let file = File::open(path).map_err(failed)?;
            file.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        }
        if bytes.len() as u64 > INPUT_BYTES_MAX {
            return Err(Fail::Local(format!("`{}` is larger than {INPUT_BYTES_MAX} bytes", path.display())));
        }
        Ok(bytes)
    }

    /// Reads a text file, or standard input for `-`.
    pub(crate) fn read_text(&self, path: &Path) -> Result<String, Fail> {
        String::from_utf8(self.read(path)?).map_err(|_| Fail::Local(format!("`{}` is no UTF-8 text", path.display())))
    }
}
