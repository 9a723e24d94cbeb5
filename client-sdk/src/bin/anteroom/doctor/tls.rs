//! Who answers in the broker's place, and which certificate is to blame.

use anteroom_sdk::{
    channel::{Address, Presented, Proxy, look},
    credentials::CredentialsError,
    error::Error,
    home::HomeError,
};

use super::Findings;
use crate::output::clean;

/// The broker could not be asked who we are: who answers in its place, or which certificate is to blame.
pub(super) async fn secure(address: &Address, proxy: Option<&Proxy>, error: &HomeError, findings: &mut Findings) {
    let text = error.to_string();
    if let HomeError::Sdk(Error::Credentials(CredentialsError::Ended { .. })) = error {
        return findings.wrong(
            "certificate",
            text,
            "ask the organisation's administrator for a token and `anteroom enroll` again",
        );
    }
    let authority = address.authority();
    if let Some(proxy) = proxy.filter(|_| text.to_lowercase().contains("invalid peer certificate")) {
        let found = format!("{authority}: {text}; {} ({}) seems to open TLS", proxy.authority(), proxy.named_by());
        let next = "ask the proxy's operator to pass the broker's host through without opening TLS, which cannot work here: both \
                    sides prove who they are inside; never trust the proxy's certificate for it";
        return findings.wrong("TLS", found, next);
    }
    let presented = match text.to_lowercase().contains("certificate") {
        true => look(address).await.ok().flatten(),
        false => None,
    };
    let (found, next) = tls(&text, presented.as_ref());
    findings.wrong("TLS", format!("{authority}: {found}"), next);
}

/// What a failed handshake means.
fn tls(text: &str, presented: Option<&Presented>) -> (String, &'static str) {
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let found = match presented {
        Some(shown) => {
            format!("{text}; the certificate there was issued by `{}` (SHA-256 {})", clean(&shown.issuer), shown.digest)
        }
        None => text.to_owned(),
    };
    // Before the rest: what is not in date by a wrong clock may be in date.
    let next = if has(&["certificate expired", "expiredcontext", "notvalidyet", "not valid yet"]) {
        "compare this machine's clock with a good one first; if it is right, the operator has to renew the broker's certificate"
    } else if has(&["unknownissuer", "unknown issuer"]) {
        "that issuer is not among the roots that this folder pinned: a proxy that opens TLS answers in the broker's place, so ask the \
         network's operator to let this connection through unopened; or the broker has other roots, so compare them with its operator"
    } else if has(&["notvalidforname", "not valid for name"]) {
        "the certificate is another host's: compare the address with the operator's, or set ANTEROOM_SERVER_NAME to the name it has"
    } else if has(&["invalid peer certificate"]) {
        "something answers in the broker's place, or the broker has other roots: compare them with the operator"
    } else if has(&["certificate"]) {
        "this folder's certificate may have ended or been refused: ask the organisation's administrator for a token and `anteroom enroll` again"
    } else {
        "try again; if it stays, ask the broker's operator and name this time"
    };
    (found, next)
}

#[cfg(test)]
mod tests {
    use anteroom_proto::names::Digest;

    use super::*;

    #[test]
    fn a_failed_handshake_is_told_by_its_cause_each_with_another_next_step() {
        let shown = Presented { issuer: "Corp, Inspection".to_owned(), digest: Digest::of(b"x") };
        let next = |text: &str| tls(text, None).1;
        let (found, opened) = tls("invalid peer certificate: UnknownIssuer", Some(&shown));
        assert!(found.contains("issued by `Corp, Inspection`") && opened.contains("opens TLS"), "{found}: {opened}");
        assert!(next("invalid peer certificate: certificate expired: verification time 1").contains("clock"));
        assert!(next("invalid peer certificate: NotValidForName").contains("another host's"));
        assert!(next("received fatal alert: CertificateRevoked").contains("enroll"));
        assert!(next("connection reset").contains("try again"));
    }
}
