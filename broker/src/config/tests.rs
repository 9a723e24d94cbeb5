#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use std::collections::BTreeMap;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    use std::io::Write as _;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(flags: Settings, variables: &[(&str, &str)], text: &str) -> Result<Config, ConfigError> {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(flags, &|name| variables.get(name).cloned(), Some(file(text).path()))
}

const LEAST: &str = "data_dir = \"/data\"\ntrust_domain = \"broker.example\"\n";

fn refused(line: &str) -> String {
    load(Settings::default(), &[], &format!("{LEAST}{line}\n")).unwrap_err().to_string()
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let text =
        format!("{LEAST}listen = \"127.0.0.1:1\"\nenrol_listen = \"127.0.0.1:2\"\nops_listen = \"127.0.0.1:3\"\n");
    let variables = [("ANTEROOM_LISTEN", "127.0.0.1:10"), ("ANTEROOM_ENROL_LISTEN", "127.0.0.1:20")];
    let flags = Settings { listen: Some(([127, 0, 0, 1], 100).into()), ..Settings::default() };
    let config = load(flags, &variables, &text).unwrap();
    let ports = [config.listen, config.enrol_listen, config.ops_listen].map(|address| address.port());
    assert_eq!(ports, [100, 20, 3]);
}

#[test]
fn each_key_has_its_variable_and_every_variable_is_read() {
    for key in KEYS {
        assert_eq!(key.variable, format!("ANTEROOM_{}", key.name.to_ascii_uppercase()));
    }
    let asked = std::cell::RefCell::new(Vec::new());
    Settings::from_environment(&|name| {
        asked.borrow_mut().push(name.to_owned());
        None
    })
    .unwrap();
    assert_eq!(asked.into_inner(), KEYS.iter().map(|key| key.variable).collect::<Vec<_>>());
}

#[test]
fn the_least_configuration_is_complete() {
    let config = load(Settings::default(), &[], LEAST).unwrap();
    assert_eq!(config.origin.as_str(), "broker.example/log");
    assert_eq!(config.kek, Secret::File("/data/kek".into()));
    assert!(config.ops_listen.ip().is_loopback());
    assert_eq!(config.wal, wal::Config::default());
}

#[test]
fn networks_are_named_by_their_blocks() {
    let config =
        load(Settings::default(), &[("ANTEROOM_NETWORKS", "hq=192.0.2.0/24, six=2001:db8::/32")], LEAST).unwrap();
    assert_eq!(config.networks.name("192.0.2.7".parse().unwrap()), "hq");
    assert_eq!(config.networks.name("2001:db8::1".parse().unwrap()), "six");
    assert_eq!(config.networks.name("198.51.100.1".parse().unwrap()), "unknown");
}

#[test]
fn example_file_names_every_key_with_its_default() {
    let example = include_str!("../../../deploy/broker.toml");
    let whole: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let table: toml::Table = whole.parse().unwrap();
    let named: Vec<&str> = table.keys().map(String::as_str).collect();
    let mut keys: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    keys.sort_unstable();
    assert_eq!(named, keys);
    let least = load(Settings::default(), &[], example).unwrap();
    // A log in a database has that one's standbys, so the two examples are not put in force together.
    let apart: String =
        whole.lines().filter(|line| !line.starts_with("standby = ")).map(|line| format!("{line}\n")).collect();
    let mut full = load(Settings::default(), &[], &apart).unwrap();
    // What has no default is shown by an example.
    full.existing_pki = None;
    full.server_files = None;
    full.proxy_peers = least.proxy_peers.clone();
    full.book = None;
    full.log_key_before = None;
    full.publish_listen = None;
    full.retention.schedule = None;
    full.networks = least.networks.clone();
    full.notices = least.notices.clone();
    full.witnesses = least.witnesses.clone();
    full.standbys = least.standbys.clone();
    assert_eq!(format!("{full:?}"), format!("{least:?}"));
}

#[test]
fn unknown_keys_are_refused_and_named() {
    let told = refused("colour = \"red\"");
    assert!(told.contains("unknown field `colour`"), "{told}");
}

#[test]
fn values_out_of_bounds_are_refused_with_what_would_do() {
    for (line, part) in [
        ("origin = \"https://broker.example\"", "without scheme"),
        ("ops_listen = \"0.0.0.0:7445\"", "stay on loopback"),
        ("enrol_listen = \"127.0.0.1:7443\"", "`listen` and `enrol_listen` name the same address"),
        ("standby_ack = \"sync\"", "where none is configured"),
        ("standby = [\"relative/place\"]", "a standby is `/folder`"),
        ("standby = [\"/a\", \"/a\"]", "twice"),
        ("server_names = []", "1 to 32 names"),
        ("server_names = [\"a b\"]", "DNS name or an IP address"),
        ("server_names = [\"a\", \"a\"]", "twice"),
        ("networks = [\"hq=192.0.2.0/33\"]", "name=address/bits"),
        ("networks = [\"192.0.2.0/24\"]", "name=address/bits"),
        ("notices_smtp = \"smtp://mail.example:25\"", "on this machine"),
        ("notices_smtp = \"smtps://user:word@mail.example:465\"", "`notices_smtp` is `given`"),
        ("notices_smtp = \"smtps://mail.example:465\"", "`notices_from` is missing"),
        ("notices_from = \"A <a@b.example>\"", "a plain one"),
        ("notices_allow = [\"10.0.0.0/8\"]", "name=address/bits"),
        ("witnesses = [\"https://w.example\"]", "an address, a space and a verifier key"),
        (
            "witnesses = [\"http://w.example witness.example/w1+f5f1ad4c+BAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\"]",
            "loopback",
        ),
        ("witnesses = [\"https://w.example nonsense\"]", "`witnesses`"),
        (
            "witnesses = [\"https://w.example witness.example/w1+f5f1ad4c+BAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\", \"https://v.example witness.example/w1+f5f1ad4c+BAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\"]",
            "once",
        ),
        ("witness_quorum = 1", "0 to 0 is expected"),
        ("wal_segment_bytes = 2097153", "a multiple of 512"),
        ("wal_reserve_bytes = 512", "is expected"),
        ("connections_max = 0", "is expected"),
        ("publish_every_ms = 0", "10 to 60000 is expected"),
        ("publish_settle_ms_max = 60001", "0 to 60000 is expected"),
        ("publish_listen = \"127.0.0.1:7443\"", "`listen` and `publish_listen` name the same address"),
        ("lock_file = \"/data/wal/log.lock\"", "a directory of its own"),
        ("lock_file = \"/data/log.lock\"", "a directory of its own"),
        ("lock_file = \"log.lock\"", "a directory of its own"),
        ("proxy_peers = [\"10.0.0.0\"]", "`address/bits`"),
        ("proxy_peers = [\"0.0.0.0/0\"]", "name the balancers"),
        ("proxy_peers = [\"10.0.0.0/8\", \"::/0\"]", "name the balancers"),
        ("server_key = \"/tls/tls.key\"", "together or not at all"),
        ("server_certificate = \"/tls/tls.crt\"\nserver_key = \"/tls/tls.key\"", "together or not at all"),
        ("connections_per_org_max = 5000", "1 to 4096 is expected"),
        ("trust_domain = \"other.example\"", "duplicate key"),
        ("log_filter = \"a=b=c\"", "`log_filter`"),
        ("kek = \"file:///same\"\nlog_key = \"file:///same\"", "two secrets"),
    ] {
        let told = refused(line);
        assert!(told.contains(part), "{line}: {told}");
    }
}

#[test]
fn secret_given_by_value_is_refused_without_repeating_it() {
    let told = refused("kek = \"0123456789abcdef\"");
    assert!(told.contains("line 3: ") && told.contains("never by value"), "{told}");
    assert!(!told.contains("0123456789abcdef"), "{told}");
    let told = load(Settings::default(), &[("ANTEROOM_KEK", "0123456789abcdef")], LEAST).unwrap_err().to_string();
    assert!(!told.contains("0123456789abcdef"), "{told}");
}

#[test]
fn secrets_come_from_files_and_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, [7; 32]).unwrap();
    let secret: Secret = format!("file://{}", path.display()).parse().unwrap();
    assert!(matches!(secret.read(&|_| None), Err(SecretError::File(_))), "others can read it");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(secret.read(&|_| None).unwrap(), [7; 32]);
    let secret: Secret = "env://KEY".parse().unwrap();
    assert_eq!(secret.read(&|name| (name == "KEY").then(|| "0A".repeat(32))).unwrap(), [10; 32]);
    assert!(matches!(secret.read(&|_| Some("0a".into())), Err(SecretError::Digits(_))));
    assert!(matches!(secret.read(&|_| None), Err(SecretError::Unset(_))));
}
