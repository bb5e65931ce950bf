//! What is believed of an archive: each test makes and signs one of its own, and then lies.

mod mirror;

use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_debian::ArchiveOptions;
use mirror::{DAY, Key, Mirror, Signing, days_ago};
use pgp::composed::SignedPublicSubKey;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Password, Timestamp};

async fn suite(mirror: &Mirror) -> Result<(), BuildError> {
    let suite = mirror.archive().suite("trixie", "amd64").await?;
    suite.closure(&["app".to_owned()], &[])?;
    Ok(())
}

/// The whole of what a person would read.
async fn refused(mirror: &Mirror) -> String {
    let error = suite(mirror).await.expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Input, "{error:?}");
    format!("{error:?}")
}

/// A signed archive, and sources that name the keys `signed_by`, which is given the path of the key's file.
fn signed(signing: Signing, signed_by: impl Fn(&Key) -> String) -> (Mirror, Key) {
    let (mirror, key) = (Mirror::new(), Key::new());
    mirror.publish("trixie", &["app"], &key, signing, days_ago(0));
    mirror.write("etc/apt/trusted.gpg.d/all.asc", &key.armored());
    mirror.sources("trixie", &signed_by(&key));
    (mirror, key)
}

#[tokio::test]
async fn a_trusted_signature_of_any_form_is_believed() {
    for signing in [Signing::Clear, Signing::Subkey, Signing::Detached] {
        let (mirror, _) = signed(signing, |_| String::new());
        suite(&mirror).await.expect("a suite");
    }
}

#[tokio::test]
async fn an_unsigned_release_is_refused_with_its_source_and_the_fix() {
    let (mirror, _) = signed(Signing::Nothing, |_| String::new());
    let text = refused(&mirror).await;
    for part in [
        "it is not signed",
        "test.sources",
        "debian_mirror",
        "InRelease",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// What a source says of its keys.
type Named<'a> = &'a dyn Fn(&Key) -> String;

#[tokio::test]
async fn only_the_named_fingerprint_counts() {
    let primary = |key: &Key| format!("Signed-By: {}\n", key.fingerprint());
    let exact = |key: &Key| format!("Signed-By: {}!\n", key.fingerprint());
    let subkey = |key: &Key| format!("Signed-By: {}\n", key.subkey_fingerprint());
    let exact_subkey = |key: &Key| format!("Signed-By: {}!\n", key.subkey_fingerprint());
    // Trusted, but another one.
    let other = |_: &Key| format!("Signed-By: {}\n", Key::new().fingerprint());
    let cases: [(Signing, Named<'_>, bool); 8] = [
        (Signing::Clear, &primary, true),
        (Signing::Subkey, &primary, true),
        (Signing::Clear, &exact, true),
        (Signing::Subkey, &exact, false),
        (Signing::Subkey, &subkey, true),
        (Signing::Clear, &subkey, false),
        (Signing::Subkey, &exact_subkey, true),
        (Signing::Clear, &other, false),
    ];
    for (at, (signing, signed_by, believed)) in cases.into_iter().enumerate() {
        let (mirror, _) = signed(signing, signed_by);
        if believed {
            suite(&mirror)
                .await
                .unwrap_or_else(|error| panic!("{at}: {error:?}"));
        } else {
            let text = refused(&mirror).await;
            assert!(text.contains("no trusted key signed it"), "{at}: {text}");
            assert!(text.contains("Signed-By"), "{at}: {text}");
        }
    }
}

#[tokio::test]
async fn keyring_files_and_keys_in_place_count_alone() {
    // The machine trusts another key as well, which must not count where one is named.
    let (mirror, key) = signed(Signing::Clear, |_| String::new());
    let other = Key::new();
    mirror.write("keys/other.asc", &other.armored());
    mirror.write("keys/right.asc", &key.armored());
    mirror.sources("trixie", "Signed-By: /keys/other.asc\n");
    assert!(refused(&mirror).await.contains("no trusted key"));
    mirror.sources("trixie", "Signed-By: /keys/other.asc /keys/right.asc\n");
    suite(&mirror).await.expect("one of two files");
    let only = format!(
        "Signed-By: /keys/other.asc,/keys/right.asc,{}\n",
        other.fingerprint()
    );
    mirror.sources("trixie", &only);
    assert!(refused(&mirror).await.contains("no trusted key"));
    let inline = |key: &Key| {
        let lines = key.armored();
        let lines = lines
            .lines()
            .map(|line| if line.is_empty() { "." } else { line });
        let lines: Vec<_> = lines.map(|line| format!(" {line}\n")).collect();
        format!("Signed-By:\n{}", lines.concat())
    };
    mirror.sources("trixie", &inline(&key));
    suite(&mirror).await.expect("a key in place");
    mirror.sources("trixie", &inline(&other));
    assert!(refused(&mirror).await.contains("no trusted key"));
    mirror.sources("trixie", "Signed-By: /keys/missing.asc\n");
    assert!(refused(&mirror).await.contains("missing.asc"));
    mirror.sources("trixie", "Signed-By: 01234567\n");
    assert!(mirror.archive_with(ArchiveOptions::default()).is_err());
}

#[tokio::test]
async fn a_revoked_subkey_signs_nothing() {
    let (mirror, key) = signed(Signing::Subkey, |_| "Signed-By: /keys/revoked.gpg\n".into());
    let mut public = key.public();
    let password = Password::empty();
    let kind = SignatureType::SubkeyRevocation;
    let mut config =
        SignatureConfig::from_key(rand::thread_rng(), &key.0.primary_key, kind).expect("config");
    let made = SubpacketData::SignatureCreationTime(Timestamp::now());
    config.hashed_subpackets = vec![Subpacket::regular(made).expect("a subpacket")];
    let subkey = &public.public_subkeys[0];
    let revocation = config
        .sign_subkey_binding(
            &key.0.primary_key,
            &public.primary_key,
            &password,
            &subkey.key,
        )
        .expect("revoked");
    let mut signatures = subkey.signatures.clone();
    mirror.write("keys/revoked.gpg", "");
    let write = |public: &pgp::composed::SignedPublicKey| {
        let path = mirror.folder.path().join("keys/revoked.gpg");
        std::fs::write(path, public.to_bytes().expect("bytes")).expect("a file");
    };
    write(&public);
    suite(&mirror).await.expect("not revoked yet");
    signatures.push(revocation);
    public.public_subkeys = vec![SignedPublicSubKey::new(subkey.key.clone(), signatures)];
    write(&public);
    assert!(refused(&mirror).await.contains("no trusted key"));
}

#[tokio::test]
async fn a_release_out_of_its_time_is_refused_with_a_word_on_the_clock() {
    let (mirror, key) = signed(Signing::Clear, |_| String::new());
    let stale = (days_ago(3), days_ago(2));
    mirror.publish_until("trixie", &["app"], &key, Signing::Clear, stale);
    let text = refused(&mirror).await;
    assert!(
        text.contains("it was valid until") && text.contains("clock"),
        "{text}"
    );
    mirror.sources("trixie", "Check-Valid-Until: no\n");
    suite(&mirror).await.expect("the source does not ask");
    mirror.sources("trixie", "");
    mirror.write(
        "etc/apt/apt.conf",
        "Acquire { Check-Valid-Until \"false\"; };\n",
    );
    suite(&mirror).await.expect("the machine does not ask");

    let future = (days_ago(0) + DAY, days_ago(0) + 2 * DAY);
    mirror.publish_until("trixie", &["app"], &key, Signing::Clear, future);
    let text = refused(&mirror).await;
    assert!(
        text.contains("dated in the future") && text.contains("clock"),
        "{text}"
    );
    mirror.sources("trixie", "Check-Date: no\n");
    suite(&mirror).await.expect("the source does not ask");
}

#[tokio::test]
async fn an_older_release_never_takes_the_place_of_a_newer() {
    let (mirror, key) = signed(Signing::Clear, |_| String::new());
    let until = days_ago(0) + DAY;
    let newer = (days_ago(1), until);
    let older = (days_ago(2), until);
    mirror.publish_until("trixie", &["app", "fixed"], &key, Signing::Clear, newer);
    let before = mirror
        .archive()
        .suite("trixie", "amd64")
        .await
        .expect("a suite");
    mirror.publish_until("trixie", &["app"], &key, Signing::Clear, older);
    let after = mirror
        .archive()
        .suite("trixie", "amd64")
        .await
        .expect("a suite");
    assert_eq!(before.digest, after.digest);
    after
        .closure(&["fixed".to_owned()], &[])
        .expect("still there");

    // What came before is over: then the older one is refused, not believed.
    let ended = (days_ago(1), days_ago(0) + std::time::Duration::from_secs(2));
    let (mirror, key) = signed(Signing::Clear, |_| String::new());
    mirror.publish_until("trixie", &["app"], &key, Signing::Clear, ended);
    suite(&mirror).await.expect("valid for two seconds");
    mirror.publish_until("trixie", &["app"], &key, Signing::Clear, older);
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(refused(&mirror).await.contains("older than"));
}

#[tokio::test]
async fn a_listed_pocket_has_to_be_there() {
    let (mirror, key) = signed(Signing::Clear, |_| String::new());
    for listed in ["trixie-security", "trixie-updates"] {
        mirror.sources(&format!("trixie {listed}"), "");
        let text = refused(&mirror).await;
        assert!(
            text.contains(listed) && text.contains("test.sources"),
            "{text}"
        );
        mirror.publish(listed, &["more"], &key, Signing::Clear, days_ago(0));
        suite(&mirror).await.expect("both are there");
        mirror.remove(listed);
    }
    // The machine has security updates of another suite; so shall the image.
    mirror.sources("trixie bookworm-security", "");
    assert!(refused(&mirror).await.contains("trixie-security"));
    mirror.sources("trixie bookworm-updates", "");
    suite(&mirror)
        .await
        .expect("updates of another suite are not demanded");
    mirror.sources("bookworm", "");
    suite(&mirror)
        .await
        .expect("another suite of the same mirror");
}

#[tokio::test]
async fn what_does_not_exist_is_the_inputs_fault_and_what_is_not_reached_is_not() {
    let (mirror, _) = signed(Signing::Clear, |_| String::new());
    let archive = mirror.archive();
    let error = archive
        .suite("bullseye", "amd64")
        .await
        .expect_err("absent");
    let error = BuildError::from(error);
    assert_eq!(error.kind, ErrorKind::Input);
    let known = archive.suite("trixie", "amd64").await.expect("a suite");
    let error = known
        .closure(&["App".to_owned()], &[])
        .expect_err("unknown");
    let error = BuildError::from(error);
    assert_eq!(
        (error.kind, error.field.as_deref()),
        (ErrorKind::Input, Some("apt_packages"))
    );
    assert_eq!(error.hints, ["did you mean `app`?"]);

    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = dead.local_addr().expect("a port");
    drop(dead);
    let options = ArchiveOptions {
        mirror: Some(format!("http://{address}/debian").parse().expect("a URL")),
        ..ArchiveOptions::default()
    };
    let archive = mirror.archive_with(options).expect("an archive");
    let error = archive
        .suite("trixie", "amd64")
        .await
        .expect_err("unreached");
    assert_eq!(BuildError::from(error).kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn an_index_is_found_by_its_hash_or_its_name_and_checked() {
    let (mirror, key) = signed(Signing::Clear, |_| String::new());
    // The mirror is being updated: the name leads to another file already.
    mirror.put("dists/trixie/main/binary-amd64/Packages.gz", "new");
    suite(&mirror).await.expect("by hash");
    mirror.publish(
        "trixie",
        &["app", "base"],
        &key,
        Signing::Clear,
        days_ago(0),
    );
    mirror.remove("by-hash");
    suite(&mirror).await.expect("by name");
    mirror.publish(
        "trixie",
        &["app", "core"],
        &key,
        Signing::Clear,
        days_ago(0),
    );
    mirror.remove("by-hash");
    let longer = "evil".repeat(1000);
    mirror.put("dists/trixie/main/binary-amd64/Packages.gz", longer);
    let error = suite(&mirror).await.expect_err("wrong content");
    assert_eq!(error.kind, ErrorKind::Failed);
}

#[tokio::test]
async fn apt_in_an_image_is_told_of_what_was_verified_and_of_no_password() {
    let subkey = |key: &Key| format!("Signed-By: {}!\n", key.subkey_fingerprint());
    let (mirror, key) = signed(Signing::Subkey, subkey);
    let other = Key::new();
    mirror.write("etc/apt/trusted.gpg.d/other.asc", &other.armored());
    let line = "deb http://127.0.0.1:9/elsewhere bookworm main\n";
    mirror.write("etc/apt/sources.list.d/other.list", line);
    mirror.write(
        "etc/apt/apt.conf",
        "Acquire::http::Proxy \"DIRECT\";\nAcquire::https::Proxy \"http://me:secret@p.example\";\n",
    );
    let folder = std::path::Path::new("/run/keys");
    let before = mirror.archive().lists("trixie", folder).expect("lists");
    assert_eq!(before.sources, "");
    mirror
        .archive()
        .suite("trixie", "amd64")
        .await
        .expect("a suite");
    let lists = mirror.archive().lists("trixie", folder).expect("lists");
    let expected = format!(
        "Types: deb\nURIs: {}/\nSuites: trixie\nComponents: main\nSigned-By: /run/keys/trixie.gpg {}!\n\n",
        mirror.url,
        key.subkey_fingerprint()
    );
    assert_eq!(lists.sources, expected);
    let keys = key.public().to_bytes().expect("bytes");
    let [(name, kept)] = &lists.keyrings[..] else {
        panic!("one keyring")
    };
    assert_eq!((name.as_str(), kept), ("trixie.gpg", &keys));
    assert_eq!(lists.settings, "Acquire::http::Proxy \"DIRECT\";\n");
    assert!(lists.withheld);
}
