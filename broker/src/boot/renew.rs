//! The server's own certificate, renewed in time, and TLS material that changed on disk, put in force.
//!
//! Certificate and key share one file, so that one rename replaces both.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::{StartError, folder::Folder};
use crate::{
    book::disk::{RealDisk, write_durably},
    clock::{TimeSource, Timekeeper, Trust},
    config::ServerFiles,
    entropy::SystemEntropy,
    pki::{
        ca::{Ca, PEM_BYTES_MAX},
        mapping::{Bound, MAPPING_BYTES_MAX, Mapping},
        read_bounded, read_secret,
    },
    tls::{NowMs, Tls, TlsFiles},
};

/// The server's certificate with its key.
pub(crate) const SERVER_FILE: &str = "server.pem";
/// A server certificate with less left than this is renewed: a third of its life.
pub(crate) const RENEW_BEFORE_MS: i64 = 30 * 24 * 3_600_000;
/// How often files are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Where the TLS library finds everything.
pub(super) fn files(folder: &Folder, server: Option<&ServerFiles>, existing_pki: Option<&Path>) -> TlsFiles {
    let (server_chain, server_key, server_roots) = match server {
        Some(files) => (files.certificate.clone(), files.key.clone(), files.roots.clone()),
        None => (folder.pki().join(SERVER_FILE), folder.pki().join(SERVER_FILE), folder.roots()),
    };
    TlsFiles {
        server_chain,
        server_key,
        server_roots: Some(server_roots),
        builtin_roots: Some(folder.roots()),
        mapping: existing_pki.map(Path::to_owned),
    }
}

/// Makes a server certificate and puts it where the old one was.
pub(super) fn write(folder: &Folder, ca: &Ca, names: &[String], now_ms: i64) -> Result<(), StartError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let issued = ca.issue_server(&names, now_ms, &mut SystemEntropy::new())?;
    let pem = format!("{}{}{}", issued.cert_pem, ca.cert_pem(), issued.key_pem);
    let put = RealDisk::open(&folder.pki()).and_then(|disk| write_durably(&disk, SERVER_FILE, pem.as_bytes()));
    put.map_err(|source| StartError::Folder { path: folder.pki().join(SERVER_FILE).display().to_string(), source })
}

/// Renews the server's certificate if it is missing, near its end, for other names or of another root. `true` if it did.
pub(super) fn renew(folder: &Folder, ca: &Ca, names: &[String], now_ms: i64) -> Result<bool, StartError> {
    let fit = current(&folder.pki().join(SERVER_FILE), ca);
    let fits = fit.is_some_and(|(not_after_ms, found)| {
        not_after_ms.saturating_sub(now_ms) > RENEW_BEFORE_MS && names.iter().all(|name| found.contains(name))
    });
    if fits {
        return Ok(false);
    }
    write(folder, ca, names, now_ms)?;
    Ok(true)
}

/// The end and the names of the certificate in a file; nothing if it cannot be read or is not of this root, which makes it due.
fn current(path: &Path, ca: &Ca) -> Option<(i64, Vec<String>)> {
    let pem = read_secret(path, PEM_BYTES_MAX).ok()?;
    if !std::str::from_utf8(&pem).ok()?.contains(ca.cert_pem()) {
        return None;
    }
    let der = CertificateDer::from_pem_slice(&pem).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let mut names = Vec::new();
    for name in &parsed.subject_alternative_name().ok()??.value.general_names {
        use x509_parser::extensions::GeneralName;
        if let GeneralName::DNSName(name) = name {
            names.push((*name).to_owned());
        } else if let GeneralName::IPAddress(bytes) = name {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
            let v6 = <[u8; 16]>::try_from(*bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
            names.extend(v4.or(v6));
        }
    }
    Some((parsed.validity().not_after.timestamp().saturating_mul(1_000), names))
}

/// Time of the last change, length, and which file it is: one that was put in another's place may be as long and as old.
type Stamp = (SystemTime, u64, u64);

/// Notices files that changed.
#[derive(Debug)]
pub(super) struct Watch {
    files: TlsFiles,
    seen: BTreeMap<PathBuf, Option<Stamp>>,
}

impl Watch {
    pub(super) fn new(files: TlsFiles) -> Self {
        let seen = look(&files);
        Self { files, seen }
    }

    /// Reloads what changed since the last look. What was refused is tried again at every look: the other half of a pair may have
    /// been on its way, or a certificate not have begun. Waits for the disk.
    pub(super) fn reload_if_changed(&mut self, tls: &Arc<Tls>) {
        let found = look(&self.files);
        if found == self.seen && !tls.is_outdated() {
            return;
        }
        self.seen = found;
        if let Err(error) = tls.reload() {
            tracing::error!(%error, "changed TLS material cannot be used; the one in force stays");
        }
    }
}

fn look(files: &TlsFiles) -> BTreeMap<PathBuf, Option<Stamp>> {
    let mut paths = vec![files.server_chain.clone(), files.server_key.clone()];
    paths.extend(files.server_roots.clone());
    paths.extend(files.builtin_roots.clone());
    if let Some(path) = &files.mapping {
        paths.push(path.clone());
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let text = read_bounded(path, MAPPING_BYTES_MAX).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // A mapping that does not parse leads to a reload that says why.
        for authority in text.and_then(|text| Mapping::parse(&text).ok()).into_iter().flat_map(|m| m.authorities) {
            paths.push(folder.join(&authority.roots));
            if let Bound::Crls { files, .. } = &authority.bound {
                paths.extend(files.iter().map(|name| folder.join(name)));
            }
        }
    }
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

/// The time that certificates are judged by. After a reboot nothing has confirmed the clock yet and its own time stands where it
/// stood; the wall clock is then the better guess, and whoever is to confirm the clock must be able to connect.
pub(super) fn wall(clock: &Arc<Timekeeper>, time: &Arc<dyn TimeSource>) -> NowMs {
    let (clock, time) = (Arc::clone(clock), Arc::clone(time));
    Arc::new(move || {
        let now = clock.now();
        match now.trust {
            Trust::Trusted | Trust::Suspended { .. } => now.at_ms,
            Trust::Unconfirmed { .. } => now.at_ms.max(time.read().wall_ms),
        }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::identity::TrustDomain;

    const NOW: i64 = 1_790_000_000_000;
    const DAY_MS: i64 = 24 * 3_600_000;

    #[test]
    fn server_certificate_is_renewed_near_its_end_and_for_new_names_only() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path());
        std::fs::create_dir(folder.pki()).unwrap();
        let domain = TrustDomain::new("broker.example").unwrap();
        let ca = Ca::create(&domain, NOW, &mut SystemEntropy::new()).unwrap();
        let one = ["broker.example".to_owned()];
        let two = ["broker.example".to_owned(), "127.0.0.1".to_owned()];
        assert!(renew(&folder, &ca, &one, NOW).unwrap(), "there was none");
        assert!(!renew(&folder, &ca, &one, NOW + 59 * DAY_MS).unwrap());
        assert!(renew(&folder, &ca, &two, NOW).unwrap());
        assert!(!renew(&folder, &ca, &two, NOW).unwrap());
        assert!(renew(&folder, &ca, &two, NOW + 60 * DAY_MS).unwrap());
        let mode = std::fs::metadata(folder.pki().join(SERVER_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn renewed_certificate_is_put_in_force_without_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path());
        std::fs::create_dir(folder.pki()).unwrap();
        let mut entropy = SystemEntropy::new();
        let ca = Ca::create(&TrustDomain::new("broker.example").unwrap(), NOW, &mut entropy).unwrap();
        ca.save(&folder.pki(), &mut entropy).unwrap();
        crate::boot::authority::settle(&folder).unwrap();
        let names = ["broker.example".to_owned()];
        write(&folder, &ca, &names, NOW).unwrap();
        let files = files(&folder, None, None);
        let tls = Arc::new(Tls::load(files.clone(), Arc::new(|| NOW + DAY_MS)).unwrap());
        let mut watch = Watch::new(files);
        let before = tls.server_not_after_ms();
        watch.reload_if_changed(&tls);
        assert_eq!(tls.server_not_after_ms(), before);
        write(&folder, &ca, &names, NOW + DAY_MS).unwrap();
        // The size may be the same and the clock of the file system coarse.
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        std::fs::File::options().write(true).open(folder.pki().join(SERVER_FILE)).unwrap().set_modified(later).unwrap();
        watch.reload_if_changed(&tls);
        assert_eq!(tls.server_not_after_ms(), before + DAY_MS);
    }
}
