//! Files on their way to a service: broken off, damaged, and of others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use imagespec_core::digest::Digest;
use serde_json::json;

use super::fixture::{Service, Trust};

#[test]
fn an_upload_goes_on_where_it_broke_off() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let content = "0123456789".repeat(50_000);
    let digest = Digest::of(&content);
    let path = format!("/v1/files/{digest}");
    let file = service.data.path().join("content");
    let put = |from: usize, offset: Option<usize>, path: &str| {
        fs_err::write(&file, &content[from..]).expect("a file");
        let upload = format!("@{}", file.display());
        let header = format!("upload-offset: {}", offset.unwrap_or(0));
        let arguments = [
            "--request",
            "PUT",
            "--data-binary",
            &upload,
            "--header",
            &header,
        ];
        service.ask(Some(&service.token), &arguments, path)
    };
    let head = || service.ask(Some(&service.token), &["--head"], &path);
    let (code, headers) = head();
    assert!(
        code == 404 && headers.contains("upload-offset: 0"),
        "{headers}"
    );

    // A connection that breaks after a part of what it promised.
    let mut connection = TcpStream::connect(&service.address).expect("a connection");
    let request = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        service.token,
        content.len()
    );
    connection.write_all(request.as_bytes()).expect("a request");
    connection
        .write_all(&content.as_bytes()[..200_000])
        .expect("a part");
    connection
        .shutdown(std::net::Shutdown::Write)
        .expect("an end");
    let mut answer = String::new();
    let _ = connection.read_to_string(&mut answer);
    drop(connection);
    let there = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let (_, headers) = head();
        let offset = headers
            .lines()
            .find_map(|line| line.strip_prefix("upload-offset: "));
        offset
            .and_then(|offset| offset.trim().parse().ok())
            .filter(|offset| *offset > 0)
    });
    let there: usize = there.expect("a part");
    assert!(there <= 200_000, "{there}");

    // Whoever goes on elsewhere is told where, and nothing is lost by it.
    let (code, _) = put(there + 1, Some(there + 1), &path);
    assert_eq!(code, 409);
    assert!(head().1.contains(&format!("upload-offset: {there}")));
    assert_eq!(put(there, Some(there), &path).0, 204);
    assert_eq!(head().0, 204);

    // What is not what it says is not kept, in whole or in part.
    let other = format!("/v1/files/{}", Digest::of("other"));
    let (code, said) = put(0, None, &other);
    assert_eq!(code, 400, "{said}");
    assert!(said.contains("is not that of"), "{said}");
    let (code, headers) = service.ask(Some(&service.token), &["--head"], &other);
    assert!(
        code == 404 && headers.contains("upload-offset: 0"),
        "{headers}"
    );
    for wrong in ["/v1/files/sha256:00", "/v1/files/..%2f..%2fx"] {
        assert_eq!(put(0, None, wrong).0, 400, "{wrong}");
    }
}

/// The files below a folder.
fn below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs_err::read_dir(folder).expect("a folder").flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn a_damaged_file_is_told_of_and_sent_again() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let place = service.place("[images.app]\nsource_root = \"src\"\nsource_copy_mode = \"all\"\n");
    place.write("src/kept.txt", "as it was\n");
    let registry = service.registry();
    let build = [
        "build",
        "--builder",
        "union",
        "--force",
        "--registry",
        &registry,
    ];
    place.says(&build);
    let files = below(&service.data.path().join("files"));
    assert_eq!(files.len(), 1, "{files:?}");
    fs_err::write(&files[0], "as it is\n").expect("a file");
    // Of the layer that there is nothing has to be read; of another one everything.
    place.write("src/more.txt", "more\n");
    let (code, told) = place.fails(&build);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("files were damaged at the service"), "{told}");
    assert!(told.contains("sent again"), "{told}");
    place.says(&build);
}

#[test]
fn packs_hold_what_their_entries_are_named_by() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let pack = |entries: &[(&str, &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            // A hostile client writes what it likes.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, *content).expect("an entry");
        }
        let file = service.data.path().join("pack");
        fs_err::write(&file, tar.into_inner().expect("an archive")).expect("a file");
        let upload = format!("@{}", file.display());
        let arguments = [
            "--data-binary",
            &upload,
            "--header",
            "content-type: application/x-tar",
        ];
        service.ask(Some(&service.token), &arguments, "/v1/files")
    };
    let (one, two) = (Digest::of("one"), Digest::of("two"));
    assert_eq!(pack(&[(&one.hex(), b"one"), (&two.hex(), b"two")]).0, 204);
    let three = Digest::of("three");
    let (code, answer) = service.post("/v1/files/missing", &json!({"files": [one, two, three]}));
    assert_eq!((code, answer), (200, json!({"files": [three]})));
    for (name, content) in [
        ("../../../../tmp/evil", b"x".as_slice()),
        (&*three.hex(), b"other"),
        ("", b"x"),
    ] {
        let (code, said) = pack(&[(name, content)]);
        assert_eq!(code, 400, "{name}: {said}");
    }
    let large = vec![0; 300 << 10];
    assert_eq!(pack(&[(&Digest::of(&large).hex(), &large)]).0, 413);
    let garbage = [
        "--data-binary",
        "garbage",
        "--header",
        "content-type: application/x-tar",
    ];
    assert_eq!(
        service.ask(Some(&service.token), &garbage, "/v1/files").0,
        400
    );
    // Another project does not have them, nor learns that this one does.
    let place = service.place("");
    let other = place.says(&["token", "add", "x", "--project", "other"]);
    let (_, answer) = service.post_as(&other, "/v1/files/missing", &json!({"files": [one]}));
    assert_eq!(answer, json!({"files": [one]}));
}
