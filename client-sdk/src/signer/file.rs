//! A key in a file: PKCS#8 in PEM or DER, or the 32 raw bytes of an Ed25519 seed.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anteroom_proto::statement::{
    envelope::{Signer, SignerError},
    key::{Algorithm, PublicKey},
};
use ring::{
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RSA_PSS_SHA256,
    },
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

/// Largest key file read, in bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;
/// Modulus of the one RSA size there is, in bytes: 3072 bits.
const RSA_MODULUS_BYTES: usize = 384;

/// A signer whose key was read from a file.
pub struct KeyFile {
    public: PublicKey,
    secret: Secret,
    rng: SystemRandom,
}

enum Secret {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<rsa::KeyPair>),
}

/// Why a file gives no signer.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("key file `{path}`: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// More than [`KEY_FILE_BYTES_MAX`] bytes.
    #[error("key file `{0}` is larger than a key")]
    Size(PathBuf),
    /// Others than its owner and group may read it, or others than its owner may write it.
    #[error("key file `{path}` has mode {mode:o}; take it away from others with `chmod 600`")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Neither PKCS#8 of a known algorithm nor a seed.
    #[error("the key is neither PKCS#8 of an Ed25519, P-256, P-384 or 3072-bit RSA key nor a 32-byte seed")]
    Key,
    /// RSA keys come from elsewhere.
    #[error("keys of this algorithm are not generated here; import one as PKCS#8")]
    Generate,
}

impl KeyFile {
    /// Makes a new key and writes it to `path`, which must not exist, readable by its owner alone.
    ///
    /// # Errors
    /// The algorithm is RSA, or the file exists or cannot be written.
    pub fn generate(path: &Path, algorithm: Algorithm) -> Result<Self, KeyFileError> {
        let rng = SystemRandom::new();
        let document = match algorithm {
            Algorithm::Ed25519 => Ed25519KeyPair::generate_pkcs8(&rng),
            Algorithm::EcdsaP256Sha256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng),
            Algorithm::EcdsaP384Sha384 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &rng),
            Algorithm::RsaPss3072Sha256 => return Err(KeyFileError::Generate),
        };
        let document = document.map_err(|_| KeyFileError::Key)?;
        let io = |why| KeyFileError::Io { path: path.to_owned(), why };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        file.write_all(pem(document.as_ref()).as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Reads a key.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it holds no usable key.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let io = |why| KeyFileError::Io { path: path.to_owned(), why };
        let file = fs::File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.mode() & 0o777;
        // Reading by the group is let through: that is how secrets are mounted for a service's own group.
        if mode & 0o027 != 0 {
            return Err(KeyFileError::Mode { path: path.to_owned(), mode });
        }
        let mut bytes = Vec::new();
        file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
            return Err(KeyFileError::Size(path.to_owned()));
        }
        Self::from_bytes(&bytes)
    }

    /// Reads a key from a file's bytes: PKCS#8 in PEM or DER, or a raw seed of 32 bytes.
    ///
    /// # Errors
    /// They are none of these.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyFileError> {
        if bytes.starts_with(b"-----BEGIN") {
            let der = PrivatePkcs8KeyDer::from_pem_slice(bytes).map_err(|_| KeyFileError::Key)?;
            return Self::from_pkcs8(der.secret_pkcs8_der());
        }
        if let Ok(seed) = <&[u8; 32]>::try_from(bytes) {
            return Self::from_seed(seed);
        }
        Self::from_pkcs8(bytes)
    }

    /// The Ed25519 key of a seed.
    ///
    /// # Errors
    /// None in practice; every seed is one.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyFileError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyFileError::Key)?;
        Self::with(Algorithm::Ed25519, pair.public_key().as_ref().to_vec(), Secret::Ed25519(pair))
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyFileError> {
        let rng = SystemRandom::new();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let public = pair.public_key().as_ref().to_vec();
            return Self::with(Algorithm::Ed25519, public, Secret::Ed25519(pair));
        }
        let curves = [
            (Algorithm::EcdsaP256Sha256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            (Algorithm::EcdsaP384Sha384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        ];
        for (algorithm, curve) in curves {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve, der, &rng) {
                let public = pair.public_key().as_ref().to_vec();
                return Self::with(algorithm, public, Secret::Ecdsa(pair));
            }
        }
        match rsa::KeyPair::from_pkcs8(der) {
            Ok(pair) if pair.public().modulus_len() == RSA_MODULUS_BYTES => {
                let public = pair.public().as_ref().to_vec();
                Self::with(Algorithm::RsaPss3072Sha256, public, Secret::Rsa(Box::new(pair)))
            }
            Ok(_) | Err(_) => Err(KeyFileError::Key),
        }
    }

    fn with(algorithm: Algorithm, public: Vec<u8>, secret: Secret) -> Result<Self, KeyFileError> {
        Ok(Self {
            public: PublicKey::new(algorithm, public).map_err(|_| KeyFileError::Key)?,
            secret,
            rng: SystemRandom::new(),
        })
    }
}

impl Signer for KeyFile {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let failed = |_| SignerError("the key could not sign".to_owned());
        match &self.secret {
            Secret::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Secret::Ecdsa(pair) => {
                let signature = pair.sign(&self.rng, message).map_err(failed)?;
                Ok(signature.as_ref().to_vec())
            }
            Secret::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PSS_SHA256, &self.rng, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyFile").field(&self.public).finish()
    }
}

/// PKCS#8 in PEM.
fn pem(der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let mut out = String::from("-----BEGIN PRIVATE KEY-----\n");
    for (at, letter) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            out.push('\n');
        }
        out.push(letter);
    }
    out.push_str("\n-----END PRIVATE KEY-----\n");
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const GENERATED: [Algorithm; 3] = [Algorithm::Ed25519, Algorithm::EcdsaP256Sha256, Algorithm::EcdsaP384Sha384];

    #[test]
    fn a_generated_key_signs_after_it_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        for algorithm in GENERATED {
            let path = folder.path().join(format!("{algorithm:?}"));
            let made = KeyFile::generate(&path, algorithm).unwrap();
            let read = KeyFile::open(&path).unwrap();
            assert_eq!(made.public_key(), read.public_key());
            assert_eq!(read.public_key().algorithm(), algorithm);
            let signature = read.sign(b"message").unwrap();
            assert!(made.public_key().holds(b"message", &signature));
            assert!(!made.public_key().holds(b"massage", &signature));
        }
    }

    #[test]
    fn a_key_file_is_its_owners_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        KeyFile::generate(&path, Algorithm::Ed25519).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let before = fs::read(&path).unwrap();
        assert!(KeyFile::generate(&path, Algorithm::Ed25519).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_key_that_others_can_read_or_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        KeyFile::generate(&path, Algorithm::Ed25519).unwrap();
        for (mode, fine) in [(0o400, true), (0o440, true), (0o644, false), (0o660, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let opened = KeyFile::open(&path);
            assert_eq!(opened.is_ok(), fine, "{mode:o}: {opened:?}");
        }
    }

    #[test]
    fn the_published_ed25519_seed_gives_the_published_key() {
        // RFC 8032, section 7.1, test 1.
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let key = KeyFile::from_bytes(&seed).unwrap();
        assert_eq!(key.public_key().bytes(), public);
        assert!(key.public_key().holds(b"", &key.sign(b"").unwrap()));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let key = KeyFile::from_seed(&[7; 32]).unwrap();
        let printed = format!("{key:?}");
        let id = data_encoding::HEXLOWER.encode(&key.public_key().id());
        assert_eq!(printed, format!("KeyFile(Ed25519:{id})"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bytes in [&b""[..], b"key", &[7; 31], &[7; 33], b"-----BEGIN NONSENSE-----"] {
            assert!(matches!(KeyFile::from_bytes(bytes), Err(KeyFileError::Key)));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(matches!(KeyFile::generate(&path, Algorithm::RsaPss3072Sha256), Err(KeyFileError::Generate)));
        assert!(!path.exists());
    }
}
