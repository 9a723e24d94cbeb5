//! Reading files, reloading them, and judging chains; no sockets.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls_pki_types::CertificateDer;

use super::testing::{HOUR, NOW, World, ca, credential, person};
use super::{Tls, TlsError, TlsFiles};
use crate::identity::{Authority, Identity, IdentityRefusal};
use crate::pki::mapping::MappingError;

const UUID: &str = "urn:uuid:6f1f3c9e-1c52-4b6a-9d3a-0d6f6a0f9f11";

/// Parameters of something valid for thirty days from `ms` on.
fn valid_from(ms: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_millis(ms.try_into().unwrap());
    params.not_after = params.not_before + Duration::from_secs(30 * 86_400);
    params
}

/// An existing PKI with a root that signs leaves and lists.
struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = valid_from(NOW - HOUR);
        params.distinguished_name.push(DnType::CommonName, "Agency Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { root: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn leaf(&self, serial: u64, uri: &str) -> CertificateDer<'static> {
        let mut params = valid_from(NOW - HOUR);
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&KeyPair::generate().unwrap(), &self.root).unwrap().into()
    }

    fn crl(&self, since_ms: i64, revoked: &[u64]) -> String {
        let since = valid_from(since_ms);
        let list = CertificateRevocationListParams {
            this_update: since.not_before,
            next_update: since.not_after,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: since.not_before,
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.root).unwrap().pem().unwrap()
    }
}

/// A world with an existing PKI beside the built-in CA.
fn with_pki(pki: &Pki, crl: &str) -> (World, TlsFiles) {
    let world = World::new();
    world.write("agency.pem", &pki.root.pem());
    world.write("agency.crl", crl);
    world.write(
        "mapping.toml",
        &format!(
            "version = 1\n[[authority]]\nname = \"agency-pki\"\nroots = \"agency.pem\"\ncrls = [\"agency.crl\"]\n\
             crl_age_hours_max = 24\n[[authority.member]]\nissuer = \"CN=Agency Root\"\nuuid = \"{UUID}\"\n\
             org = \"agency\"\nrole = \"person\"\nname = \"alice\"\n"
        ),
    );
    let files = TlsFiles { mapping: Some(world.path("mapping.toml")), ..world.files() };
    (world, files)
}

fn identify(tls: &Tls, leaf: CertificateDer<'static>, now_ms: i64) -> Result<(Identity, Authority), IdentityRefusal> {
    tls.current().trust.identify(&[leaf], now_ms)
}

#[test]
fn certificate_of_the_built_in_ca_names_its_principal() {
    let world = World::new();
    let tls = world.tls();
    let alice = credential(&world.ca, &person("aisi", "alice"));
    let (identity, authority) = tls.current().trust.identify(&alice.chain, NOW).unwrap();
    assert_eq!(identity.principal, person("aisi", "alice"));
    assert_eq!(authority, Authority::BuiltIn);
    let expired = tls.current().trust.identify(&alice.chain, NOW + 25 * HOUR);
    assert_eq!(expired.unwrap_err(), IdentityRefusal::Expired);
    let before_1970 = tls.current().trust.identify(&alice.chain, -1);
    assert_eq!(before_1970.unwrap_err(), IdentityRefusal::Untrusted);
}

#[test]
fn stranger_with_the_same_trust_domain_is_untrusted() {
    let world = World::new();
    let mallory = credential(&ca(), &person("aisi", "alice"));
    let refused = world.tls().current().trust.identify(&mallory.chain, NOW);
    assert_eq!(refused.unwrap_err(), IdentityRefusal::Untrusted);
}

#[test]
fn certificate_of_an_existing_pki_is_found_in_the_mapping() {
    let pki = Pki::new();
    let (world, files) = with_pki(&pki, &pki.crl(NOW - HOUR, &[]));
    let tls = Tls::load(files, world.now()).unwrap();
    let (identity, authority) =
        identify(&tls, pki.leaf(7, &UUID.to_ascii_uppercase().replace("URN:UUID", "urn:uuid")), NOW).unwrap();
    assert_eq!(identity.principal, person("agency", "alice"));
    assert_eq!(identity.serial, "07");
    assert_eq!(authority, Authority::Existing("agency-pki".to_owned()));
    let nobody = pki.leaf(8, "urn:uuid:00000000-0000-0000-0000-000000000000");
    assert_eq!(identify(&tls, nobody, NOW).unwrap_err(), IdentityRefusal::Unmapped);
    let own = credential(&world.ca, &person("aisi", "bob"));
    assert_eq!(tls.current().trust.identify(&own.chain, NOW).unwrap().1, Authority::BuiltIn);
}

#[test]
fn existing_pki_cannot_speak_in_the_built_in_ones_uris() {
    let pki = Pki::new();
    let (world, files) = with_pki(&pki, &pki.crl(NOW - HOUR, &[]));
    let tls = Tls::load(files, world.now()).unwrap();
    let posing = pki.leaf(9, "spiffe://broker.example/org/aisi/admin/root");
    assert_eq!(identify(&tls, posing, NOW).unwrap_err(), IdentityRefusal::Unmapped);
}

#[test]
fn revoked_certificate_is_refused_from_the_next_reload_on() {
    let pki = Pki::new();
    let (world, files) = with_pki(&pki, &pki.crl(NOW - HOUR, &[]));
    let tls = Tls::load(files, world.now()).unwrap();
    let leaf = pki.leaf(7, UUID);
    assert!(identify(&tls, leaf.clone(), NOW).is_ok());
    world.write("agency.crl", &pki.crl(NOW - HOUR, &[7]));
    tls.reload().unwrap();
    assert_eq!(identify(&tls, leaf, NOW).unwrap_err(), IdentityRefusal::Untrusted);
    assert!(identify(&tls, pki.leaf(8, UUID), NOW).is_ok());
}

#[test]
fn old_revocation_list_refuses_everybody() {
    let pki = Pki::new();
    let (world, files) = with_pki(&pki, &pki.crl(NOW - HOUR, &[]));
    let tls = Tls::load(files.clone(), world.now()).unwrap();
    let leaf = pki.leaf(7, UUID);
    assert!(identify(&tls, leaf.clone(), NOW + 23 * HOUR).is_ok());
    assert_eq!(identify(&tls, leaf, NOW + 23 * HOUR + 1_000).unwrap_err(), IdentityRefusal::Untrusted);
    assert!(tls.stale_authorities().is_empty());
    world.set_clock(NOW + 23 * HOUR + 1_000);
    assert_eq!(tls.stale_authorities(), ["agency-pki"]);
    tls.reload().unwrap();
    assert_eq!(identify(&tls, pki.leaf(7, UUID), NOW + 23 * HOUR + 1_000).unwrap_err(), IdentityRefusal::Untrusted);
    let own = credential(&world.ca, &person("aisi", "bob"));
    assert!(tls.current().trust.identify(&own.chain, NOW + 23 * HOUR + 1_000).is_ok(), "others do not suffer for it");
}

#[test]
fn list_from_the_future_is_refused() {
    let pki = Pki::new();
    let (world, files) = with_pki(&pki, &pki.crl(NOW + HOUR, &[]));
    assert!(matches!(Tls::load(files, world.now()), Err(TlsError::CrlFromTheFuture(_))));
}

#[test]
fn list_of_another_pki_says_nothing() {
    let pki = Pki::new();
    let (world, files) = with_pki(&pki, &Pki::new().crl(NOW - HOUR, &[]));
    let tls = Tls::load(files, world.now()).unwrap();
    assert_eq!(identify(&tls, pki.leaf(7, UUID), NOW).unwrap_err(), IdentityRefusal::Untrusted);
}

#[test]
fn failed_reload_names_the_file_and_changes_nothing() {
    let world = World::new();
    let tls = world.tls();
    let before = tls.current();
    let generation = tls.generation();
    for (name, contents) in [
        ("server.pem", "nonsense".to_owned()),
        ("server.key", "nonsense".to_owned()),
        ("roots.pem", String::new()),
        ("roots.pem", world.ca.cert_pem().to_owned() + ca().cert_pem().get(..60).unwrap()),
        ("server.pem", world.ca.cert_pem().to_owned()),
    ] {
        let good = std::fs::read_to_string(world.path(name)).unwrap();
        world.write(name, &contents);
        let error = tls.reload().unwrap_err();
        let named = error.to_string().contains(name) || matches!(error, TlsError::Refused(_));
        assert!(named, "{name}: {error}");
        world.write(name, &good);
    }
    assert!(std::sync::Arc::ptr_eq(&before, &tls.current()));
    assert!(!generation.has_changed().unwrap());
    tls.reload().unwrap();
    assert!(generation.has_changed().unwrap());
}

#[test]
fn lapsed_server_certificate_is_refused() {
    let world = World::new();
    let tls = world.tls();
    world.set_clock(tls.server_not_after_ms() + 1);
    assert!(matches!(tls.reload(), Err(TlsError::ServerLapsed(_))));
}

#[test]
fn one_root_stands_behind_one_authority() {
    let pki = Pki::new();
    let (world, files) = with_pki(&pki, &pki.crl(NOW - HOUR, &[]));
    world.write("agency.pem", world.ca.cert_pem());
    assert!(matches!(Tls::load(files, world.now()), Err(TlsError::RootTwice(_))));
}

#[test]
fn broken_mapping_and_no_authority_are_refused() {
    let world = World::new();
    let none = TlsFiles { builtin_roots: None, ..world.files() };
    assert!(matches!(Tls::load(none, world.now()), Err(TlsError::NoAuthority)));
    world.write("mapping.toml", "version = 1\ncolour = 1\n");
    let broken = TlsFiles { mapping: Some(world.path("mapping.toml")), ..world.files() };
    let error = Tls::load(broken, world.now()).unwrap_err();
    assert!(matches!(error, TlsError::Mapping { source: MappingError::Syntax(_), .. }));
}

#[test]
fn short_lived_certificates_need_no_revocation_list_and_others_are_refused() {
    const ID: &str = "spiffe://agency.example/eval/runner";
    let pki = Pki::new();
    let (world, files) = with_pki(&pki, "");
    world.write(
        "mapping.toml",
        &format!(
            "version = 1\n[[authority]]\nname = \"agency-spire\"\nroots = \"agency.pem\"\nlifetime_hours_max = 2\n\
             [[authority.member]]\nuri = \"{ID}\"\norg = \"agency\"\nrole = \"workload\"\nname = \"runner\"\n"
        ),
    );
    let tls = Tls::load(files, world.now()).unwrap();
    let leaf = |uri: &str, hours: u64| -> CertificateDer<'static> {
        let mut params = valid_from(NOW - HOUR);
        params.not_after = params.not_before + Duration::from_secs(hours * 3_600);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.signed_by(&KeyPair::generate().unwrap(), &pki.root).unwrap().into()
    };
    let (identity, authority) = identify(&tls, leaf(ID, 2), NOW).unwrap();
    assert_eq!(identity.principal.to_string(), "agency/workload/runner");
    assert_eq!(authority, Authority::Existing("agency-spire".to_owned()));
    assert_eq!(identify(&tls, leaf(ID, 2), NOW + 2 * HOUR).unwrap_err(), IdentityRefusal::Expired);
    assert_eq!(identify(&tls, leaf(ID, 3), NOW).unwrap_err(), IdentityRefusal::Untrusted, "it lives too long");
    let other = leaf("spiffe://agency.example/eval/other", 2);
    assert_eq!(identify(&tls, other, NOW).unwrap_err(), IdentityRefusal::Unmapped);
}

#[test]
fn a_server_certificate_that_members_would_refuse_is_refused_first() {
    let world = World::new();
    let files = TlsFiles { server_roots: Some(world.path("handed.pem")), ..world.files() };
    world.write("handed.pem", world.ca.cert_pem());
    let tls = Tls::load(files.clone(), world.now()).unwrap();
    assert_eq!(&*tls.server_roots_pem(), world.ca.cert_pem());
    world.write("handed.pem", ca().cert_pem());
    assert!(matches!(tls.reload(), Err(TlsError::ServerRoots { .. })));
    assert!(tls.is_outdated());
    assert_eq!(&*tls.server_roots_pem(), world.ca.cert_pem(), "what was in force stays");
    world.write("handed.pem", &format!("{}{}", ca().cert_pem(), world.ca.cert_pem()));
    tls.reload().unwrap();
    assert!(!tls.is_outdated() && tls.server_roots_pem().contains(world.ca.cert_pem()));
}
