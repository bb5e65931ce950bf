//! Packages for a base of Ubuntu, on a machine of Debian: an archive as Ubuntu has them, with packages in `universe`,
//! updates in the same place, and zstd in its packages.

use std::path::Path;
use std::process::{Command, Stdio};

use super::app;
use super::variant::Ground;
use crate::place::{Place, Running, has};

/// Makes and signs the archive in the folder it runs in: suites, components, packages.
const ARCHIVE: &str = r#"set -eu
package() { # suite component name version dependencies
    root=$PWD/build/$3
    rm -rf "$root"; mkdir -p "$root/DEBIAN" "$root/usr/share/$3" "ubuntu/pool/$2"
    printf '%s\n' "$4" > "$root/usr/share/$3/version"
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Nobody <nobody@example.invalid>\nDescription: a test\n' \
        "$3" "$4" > "$root/DEBIAN/control"
    [ -z "$5" ] || printf 'Depends: %s\n' "$5" >> "$root/DEBIAN/control"
    printf '#!/bin/sh\nset -e\nmkdir -p /etc/%s\ncat /usr/share/%s/version > /etc/%s/configured\n' "$3" "$3" "$3" \
        > "$root/DEBIAN/postinst"
    chmod 755 "$root/DEBIAN/postinst"
    file=pool/$2/$3_$4_all.deb
    dpkg-deb -Zzstd --root-owner-group --build "$root" "ubuntu/$file" > /dev/null
    index=ubuntu/dists/$1/$2/binary-amd64
    mkdir -p "$index"
    { dpkg-deb --field "ubuntu/$file"
      printf 'Filename: %s\nSize: %s\nSHA256: %s\n\n' "$file" "$(stat -c %s "ubuntu/$file")" \
          "$(sha256sum "ubuntu/$file" | cut -d ' ' -f 1)"; } >> "$index/Packages"
}
package noble main libgreeter 1.0 ''
package noble universe greeter 1.0 'libgreeter (>= 1.0)'
package noble-updates universe greeter 2.0 'libgreeter (>= 1.1)'
package noble-security main libgreeter 1.1 ''
export GNUPGHOME=$PWD/keys
mkdir -m 700 keys
gpg --batch --quiet --passphrase '' --quick-generate-key archive@example.invalid ed25519 sign never
gpg --export > keyring.gpg
for suite in noble noble-updates noble-security; do
    cd "ubuntu/dists/$suite"
    { printf 'Origin: Ubuntu\nLabel: Ubuntu\nSuite: %s\nCodename: noble\nDate: %s\nArchitectures: amd64\nSHA256:\n' \
          "$suite" "$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S UTC')"
      find . -name Packages -exec gzip -k {} +
      for file in */binary-amd64/Packages*; do
          printf ' %s %s %s\n' "$(sha256sum "$file" | cut -d ' ' -f 1)" "$(stat -c %s "$file")" "$file"
      done; } > Release
    gpg --batch --quiet --clearsign --output InRelease Release
    cd ../../..
done
gpgconf --kill all
"#;

fn serve(folder: &Path) -> (Running, String) {
    let mut server = Command::new("python3");
    server
        .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"])
        .current_dir(folder)
        .stderr(Stdio::null());
    let (server, line) = Running::telling(&mut server);
    let port = line.split_whitespace().nth(5).expect("a port");
    (server, format!("http://127.0.0.1:{port}/ubuntu"))
}

#[test]
fn packages_come_from_the_archive_of_the_base() {
    if !["gpg", "dpkg-deb", "python3"].into_iter().all(has) {
        return;
    }
    let Some(ground) = Ground::new() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new("sh")
        .args(["-c", ARCHIVE])
        .current_dir(folder.path())
        .status();
    assert!(made.expect("sh").success());
    let (server, mirror) = serve(folder.path());
    let release = "ID=ubuntu\nVERSION_CODENAME=noble\n";
    ground.changed(
        "noble:1",
        &[("etc/.wh.os-release", ""), ("usr/lib/os-release", release)],
        &[],
    );

    let place = Place::new(&app(&ground, "noble:1", "apt_packages = [\"greeter\"]"));
    let mirror = format!("debian_mirror={mirror}");
    let keyring = format!(
        "debian_keyring={}",
        folder.path().join("keyring.gpg").display()
    );
    let options = ["--option", &mirror, "--option", &keyring];
    let built = place.builds(&[&["--no-bytecode"], &options[..]].concat());
    assert_eq!(built["work"]["packages_fetched"], 2, "{built}");
    let look =
        "dpkg-query -W greeter libgreeter; cat /etc/greeter/configured /etc/libgreeter/configured";
    let exec = ["exec", "app", "--progress", "quiet", "--no-bytecode"];
    let exec = [&exec[..], &options, &["--", "/bin/sh", "-c", look]].concat();
    assert_eq!(place.says(&exec), "greeter\t2.0\nlibgreeter\t1.1\n2.0\n1.1");

    // Keys that did not sign are not enough, nor is an archive of another origin.
    let mirror_alone = ["build", "--force", "--pull", "--option", &mirror];
    let (code, told) = place.fails(&mirror_alone);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("InRelease"), "{told}");
    drop(server);
}
