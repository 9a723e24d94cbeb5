//! The doors' own keys: whose word about addresses counts, and certificates that somebody else makes.

use std::path::{Path, PathBuf};

use super::{ConfigError, List, bad};
use crate::listen::{PROXY_PEERS_MAX, ProxyPeers};

/// The server's certificate where the built-in authority does not make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate, its intermediates after it: PEM.
    pub certificate: PathBuf,
    /// Its private key: PEM.
    pub key: PathBuf,
    /// The roots that it leads to, which members are handed: PEM.
    pub roots: PathBuf,
}

/// Each as `address/bits`.
pub(super) fn check_proxies(given: Option<List>) -> Result<ProxyPeers, ConfigError> {
    let given = given.unwrap_or_default().0;
    if given.len() > PROXY_PEERS_MAX {
        return Err(bad("proxy_peers", given.len(), format!("{PROXY_PEERS_MAX} blocks at most")));
    }
    let mut blocks = Vec::with_capacity(given.len());
    for text in given {
        let block: crate::block::Block = text.parse().map_err(|error| bad("proxy_peers", &text, error))?;
        if block.holds_all() {
            return Err(bad(
                "proxy_peers",
                &text,
                "anybody could say that they come from anywhere; name the balancers",
            ));
        }
        blocks.push(block);
    }
    Ok(ProxyPeers::new(blocks))
}

/// All three or none.
pub(super) fn check_server(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    roots: Option<PathBuf>,
) -> Result<Option<ServerFiles>, ConfigError> {
    match (certificate, key, roots) {
        (None, None, None) => Ok(None),
        (Some(certificate), Some(key), Some(roots)) => Ok(Some(ServerFiles { certificate, key, roots })),
        (certificate, key, roots) => {
            let given = [certificate, key, roots].into_iter().flatten().map(|path| shown(&path));
            let rule = "`server_certificate`, `server_key` and `server_roots` are given together or not at all";
            Err(bad("server_certificate", given.collect::<Vec<_>>().join(", "), rule))
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
