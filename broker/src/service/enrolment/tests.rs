//! Newcomers at the enrolment door.
#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use rcgen::{CertificateParams, KeyPair};

use super::{enrolment_server::Enrolment as _, *};
use crate::{
    clock::ScriptedTime,
    identity::{Principal, Role, TrustDomain},
    pki::token::TokenLifetime,
};

const NOW: i64 = 1_800_000_000_000;

struct Door {
    enrolment: Enrolment,
    time: ScriptedTime,
    _folder: tempfile::TempDir,
}

impl Door {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let time = ScriptedTime::new(NOW);
        let clock = Arc::new(Timekeeper::start(Arc::new(time.clone()), None).unwrap());
        let domain = TrustDomain::new("broker.test").unwrap();
        let ca = Arc::new(Ca::create(&domain, NOW, &mut SystemEntropy::new()).unwrap());
        let registrar = Registrar::new(ca, ClientLifetime::default(), Roots::new(|| "roots".into()), clock);
        let tokens = Arc::new(TokenStore::open(folder.path()).unwrap());
        Self { enrolment: Enrolment::new(registrar, tokens), time, _folder: folder }
    }

    fn token(&self) -> String {
        let alice = Principal::new("aisi", Role::Person, "alice").unwrap();
        let entropy = &mut SystemEntropy::new();
        let token = self.enrolment.tokens.mint(&alice, TokenLifetime::default(), NOW, entropy).unwrap();
        token.expose().to_owned()
    }

    async fn ask(&self, token: &str, csr_der: Vec<u8>) -> Result<EnrolReply, String> {
        let mut request = Request::new(EnrolRequest { token: token.to_owned(), csr_der });
        request.extensions_mut().insert(Newcomer { peer: ([127, 0, 0, 1], 1).into() });
        let reply = self.enrolment.enrol(request).await;
        reply.map(Response::into_inner).map_err(|status| code(&status))
    }
}

fn code(status: &Status) -> String {
    status.metadata().get(crate::status::CODE_KEY).unwrap().to_str().unwrap().to_owned()
}

fn csr() -> Vec<u8> {
    CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[tokio::test]
async fn a_token_is_worth_one_certificate() {
    let door = Door::new();
    let token = door.token();
    assert_eq!(door.ask(&token, b"nonsense".to_vec()).await.unwrap_err(), "csr_invalid");
    let reply = door.ask(&token, csr()).await.unwrap();
    assert_eq!((reply.identity.as_str(), reply.roots_pem.as_str()), ("aisi/person/alice", "roots"));
    assert_eq!(reply.not_after_ms, NOW + 24 * 3_600_000);
    assert_eq!(door.ask(&token, csr()).await.unwrap_err(), "token_used");
}

#[tokio::test]
async fn other_tokens_are_worth_nothing() {
    let door = Door::new();
    let elsewhere = Door::new().token();
    for bad in [elsewhere.as_str(), "", "nonsense", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
        assert_eq!(door.ask(bad, csr()).await.unwrap_err(), "token_invalid");
    }
    let token = door.token();
    door.time.advance(3_600_000);
    assert_eq!(door.ask(&token, csr()).await.unwrap_err(), "token_expired");
}

#[tokio::test]
async fn nobody_enrols_through_another_door() {
    let door = Door::new();
    let request = Request::new(EnrolRequest { token: door.token(), csr_der: csr() });
    assert_eq!(code(&door.enrolment.enrol(request).await.unwrap_err()), "caller_role");
}
