//! Closing bundles: what is in one, and that a byte altered anywhere is found and named, also by one who lists the files anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anteroom_proto::rpc::{BrokerStarted, CallRefused, GrantAccepted, GrantOffered, GrantWithdrawn};

use super::{
    dossiers::{pinned, told},
    *,
};
use crate::{
    bundle::{BundleError, FileSaid, MANIFEST, Manifest, Render, check, make},
    report::{self, Asked, Report},
};

const STARTED: u32 = 2;
const OFFERED: u32 = 20;
const ACCEPTED: u32 = 21;
const WITHDRAWN: u32 = 27;
const REFUSED: u32 = 41;

const RENDER: Render<'static> = Render { page: &page, pdf: &|report| format!("%PDF of {}", page(report)).into_bytes() };

fn page(report: &Report) -> String {
    format!("<p>{} calls</p>\n", report.grants.first().map_or(0, |grant| grant.sums.calls))
}

fn system() -> (Scope, TagKey) {
    let key = Scope::System.tag_key(&Digest::of(b"system"));
    (Scope::System, key)
}

/// A log with a grant that both sides signed.
fn granted(world: &World) -> MiniLog {
    let mut log = MiniLog::new();
    fill(&mut log, 2);
    let (scope, key, dossier) = (world.scope(), world.tag_key(), &world.dossier);
    let offered = GrantOffered { terms: dossier.terms.clone(), offer: dossier.offer.clone() };
    log.append(&scope, &key, OFFERED, &offered);
    log.append(&scope, &key, ACCEPTED, &GrantAccepted { acceptance: dossier.acceptance.clone() });
    log
}

/// A mirror of a grant that was used and withdrawn, with its dossier.
fn closed() -> (World, MiniLog, tempfile::TempDir) {
    let world = told();
    let mut log = granted(&world);
    let (scope, key) = own(&world);
    log.append(&system().0, &system().1, STARTED, &BrokerStarted { version: "1".to_owned(), open_calls: 0 });
    let call = Call::new(&world);
    call.record(&world, &mut log);
    let refused = CallRefused { code: "broker_denied".to_owned(), caller: "w".to_owned(), ..Default::default() };
    log.append(&scope, &key, REFUSED, &refused);
    let cut_ms = crate::verify::world::NOW + 20;
    log.append(&scope, &key, WITHDRAWN, &GrantWithdrawn { statement: world.dossier.offer.clone(), cut_ms });
    let folder = tempfile::tempdir().unwrap();
    mirrored(folder.path(), &mut Broker::new(&log), &[own(&world), other(), system()]).unwrap();
    Mirror::at(folder.path()).keep_dossier(world.terms.grant, &world.dossier, &pinned(&world, &log).pins).unwrap();
    (world, log, folder)
}

/// A bundle of it, and where it is.
fn bundled() -> (World, MiniLog, tempfile::TempDir, PathBuf) {
    let (world, log, folder) = closed();
    let out = folder.path().join("closing");
    let mirror = Mirror::at(folder.path());
    let made = make(&mirror, &pinned(&world, &log), world.terms.grant, &out, RENDER, &mut |_| {}).unwrap();
    assert_eq!(made.files, made.held.files + 1);
    (world, log, folder, out)
}

fn checked(dir: &Path, demands: &Demands) -> Result<Report, BundleError> {
    check(dir, demands, RENDER, &mut |_| {}).map(|held| held.report)
}

fn manifest(dir: &Path) -> Manifest {
    serde_json::from_slice(&fs::read(dir.join(MANIFEST)).unwrap()).unwrap()
}

/// Lists the files anew, as whoever altered one would.
fn listed(dir: &Path, change: impl FnOnce(&mut Manifest)) {
    let mut manifest = manifest(dir);
    for said in &mut manifest.files {
        if let Ok(bytes) = fs::read(dir.join(&said.file)) {
            (said.bytes, said.sha256) = (bytes.len() as u64, Digest::of(&bytes));
        }
    }
    change(&mut manifest);
    fs::write(dir.join(MANIFEST), format!("{}\n", serde_json::to_string_pretty(&manifest).unwrap())).unwrap();
}

#[test]
fn a_bundle_holds_what_is_left_of_its_grant_and_nothing_of_others() {
    let (world, log, folder, out) = bundled();
    let demands = pinned(&world, &log);
    let report = checked(&out, &demands).unwrap();
    let grant = &report.grants[0];
    assert_eq!((grant.grant, grant.stands), (world.terms.grant, "withdrawn"));
    assert_eq!((grant.sums.calls, grant.sums.completed, grant.sums.refusals), (1, 1, 1));
    assert_eq!(grant.terms, Some(Digest::of(&world.dossier.terms)));
    assert_eq!(report.broker.as_ref().unwrap().starts.len(), 1);
    let names: Vec<String> = manifest(&out).files.into_iter().map(|said| said.file).collect();
    for due in [
        "README.txt",
        "keys/agency.1.json",
        "keys/lab.1.json",
        "mirror/anteroom/log.vkey",
        "mirror/checkpoint",
        "report.html",
        "report.json",
        "report.pdf",
        "roster.json",
        "rules.cedar",
        "terms.json",
        "verify.py",
    ] {
        assert!(names.iter().any(|name| name == due), "{due} of {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("other") || name.contains("/search/") || name.ends_with("lock")));
    assert_eq!(fs::read(out.join("terms.json")).unwrap(), world.dossier.terms);
    // The same records give the same report, wherever they are.
    let asked = Asked { grant: Some(world.terms.grant), ..Asked::default() };
    let scopes = [system().0, world.scope()];
    let mirror = Mirror::at(folder.path());
    let (again, _) = report::of(&mirror, &demands, &scopes, &asked, report::MADE_BY, &mut |_| {}).unwrap();
    assert_eq!(again, report);
    // The copy verifies as a mirror, too, and a stranger needs the log's key alone.
    drop(check::verify(&Mirror::at(&out.join("mirror")), &demands, None, &mut |_| {}, |_| Ok(())).unwrap());
    checked(&out, &super::demands(&log)).unwrap();
}

#[test]
fn a_byte_altered_in_any_file_is_found_and_the_file_named() {
    let (world, log, _folder, out) = bundled();
    let demands = pinned(&world, &log);
    let all = manifest(&out).files;
    assert!(all.len() > 15);
    for FileSaid { file, .. } in all {
        let path = out.join(&file);
        let honest = fs::read(&path).unwrap();
        for at in [0, honest.len() / 2, honest.len() - 1] {
            let mut altered = honest.clone();
            altered[at] ^= 1;
            fs::write(&path, &altered).unwrap();
            let error = checked(&out, &demands).unwrap_err();
            assert!(!error.is_local() && error.to_string().contains(&format!("`{file}`")), "{file} at {at}: {error}");
        }
        fs::write(&path, &honest[..honest.len() - 1]).unwrap();
        assert!(checked(&out, &demands).unwrap_err().to_string().contains(&file));
        fs::remove_file(&path).unwrap();
        assert!(checked(&out, &demands).unwrap_err().to_string().contains(&file));
        fs::write(&path, &honest).unwrap();
    }
    fs::write(out.join("mirror/more"), b"x").unwrap();
    assert!(checked(&out, &demands).unwrap_err().to_string().contains("`mirror/more`: the manifest does not list it"));
    fs::remove_file(out.join("mirror/more")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", out.join("link")).unwrap();
    assert!(checked(&out, &demands).unwrap_err().to_string().contains("`link`"));
    fs::remove_file(out.join("link")).unwrap();
    checked(&out, &demands).unwrap();
}

#[test]
fn every_altered_byte_of_the_manifest_is_found() {
    let (world, log, _folder, out) = bundled();
    let demands = pinned(&world, &log);
    let path = out.join(MANIFEST);
    let honest = fs::read(&path).unwrap();
    for at in 0..honest.len() {
        let mut altered = honest.clone();
        altered[at] ^= 1 << (at % 7);
        fs::write(&path, &altered).unwrap();
        let error = checked(&out, &demands).unwrap_err();
        assert!(!error.is_local() && error.to_string().contains("manifest"), "byte {at}: {error}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(checked(&out, &demands), Err(BundleError::Wrong { file, .. }) if file == MANIFEST));
}

/// Whoever can write a file can write the manifest as well.
#[test]
fn files_altered_and_listed_anew_are_held_against_records_dossier_and_program() {
    let (world, log, _folder, out) = bundled();
    let demands = pinned(&world, &log);
    let first = fs::read(out.join(MANIFEST)).unwrap();
    for FileSaid { file, .. } in manifest(&out).files {
        let path = out.join(&file);
        let honest = fs::read(&path).unwrap();
        for at in [1, honest.len() / 2, honest.len() - 2] {
            let mut altered = honest.clone();
            altered[at] ^= 1;
            fs::write(&path, &altered).unwrap();
            listed(&out, |_| {});
            let error = checked(&out, &demands).unwrap_err();
            assert!(!error.is_local(), "{file} at {at}: {error}");
            let name = file.rsplit('/').next().unwrap();
            assert!(error.to_string().contains(name), "{file} at {at}: {error}");
        }
        fs::write(&path, &honest).unwrap();
        fs::write(out.join(MANIFEST), &first).unwrap();
    }
    // A figure that reads better.
    let path = out.join("report.json");
    let honest = fs::read_to_string(&path).unwrap();
    fs::write(&path, honest.replace("\"refusals\": 1", "\"refusals\": 0")).unwrap();
    listed(&out, |_| {});
    let told = checked(&out, &demands).unwrap_err().to_string();
    assert!(told.contains("`report.json`: line") && told.contains("\"refusals\": 1"), "{told}");
    fs::write(&path, honest).unwrap();
    // A file beside, and a manifest of something else.
    fs::write(out.join("notes.txt"), b"x").unwrap();
    let more = FileSaid { file: "notes.txt".to_owned(), bytes: 1, sha256: Digest::of(b"x") };
    listed(&out, |manifest| manifest.files.push(more));
    assert!(checked(&out, &demands).unwrap_err().to_string().contains("`notes.txt`: no bundle has such a file"));
    fs::remove_file(out.join("notes.txt")).unwrap();
    fs::write(out.join(MANIFEST), &first).unwrap();
    type Change = fn(&mut Manifest);
    let changes: [Change; 5] = [
        |manifest| manifest.entries += 1,
        |manifest| manifest.origin.push('x'),
        |manifest| manifest.made_by.push('x'),
        |manifest| manifest.scopes.clear(),
        |manifest| manifest.format = 2,
    ];
    for change in changes {
        listed(&out, change);
        assert!(matches!(checked(&out, &demands), Err(BundleError::Wrong { file, .. }) if file == MANIFEST));
        fs::write(out.join(MANIFEST), &first).unwrap();
    }
    checked(&out, &demands).unwrap();
}

#[test]
fn a_bundle_of_another_log_is_told_and_nothing_is_written_into_it() {
    let (world, log, _folder, out) = bundled();
    let mut forked = granted(&world);
    fill(&mut forked, 10);
    let seen = forked.trust().verify(forked.note()).unwrap();
    let demands = Demands { seen: Some(seen), ..pinned(&world, &log) };
    assert!(matches!(checked(&out, &demands), Err(BundleError::Forked { theirs: 10, .. })));
    checked(&out, &pinned(&world, &log)).unwrap();
    assert!(!out.join("mirror/anteroom/evidence").exists());
}

#[test]
fn no_bundle_is_made_over_another_without_a_dossier_or_from_what_does_not_hold() {
    let (world, log, folder, out) = bundled();
    let (demands, grant) = (pinned(&world, &log), world.terms.grant);
    let mirror = Mirror::at(folder.path());
    let again = |out: &Path| make(&mirror, &demands, grant, out, RENDER, &mut |_| {});
    assert!(matches!(again(&out), Err(BundleError::Exists(_))));
    let fresh = folder.path().join("fresh");
    let tile = fs::read_dir(folder.path().join("tile/entries/000.p")).unwrap().next().unwrap().unwrap().path();
    let honest = fs::read(&tile).unwrap();
    let mut altered = honest.clone();
    altered[30] ^= 1;
    fs::write(&tile, &altered).unwrap();
    assert!(!again(&fresh).unwrap_err().is_local());
    assert!(!fresh.exists() && !folder.path().join("fresh.part").exists());
    fs::write(&tile, &honest).unwrap();
    fs::remove_file(folder.path().join(format!("anteroom/dossiers/{grant}.dossier"))).unwrap();
    assert!(matches!(again(&fresh), Err(BundleError::NoDossier(_))));
    let (scope, _) = own(&world);
    fs::remove_file(folder.path().join(format!("anteroom/slices/{scope}.records"))).unwrap();
    assert!(matches!(again(&fresh), Err(BundleError::Mirror(MirrorError::NoSlice(_)))));
    assert!(matches!(checked(&fresh, &demands), Err(BundleError::Absent(_))));
}
