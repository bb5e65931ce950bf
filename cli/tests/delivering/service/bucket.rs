//! Files of contexts in an object store, over S3's protocol: services that share a database and no folder.

use std::time::Duration;

use super::fixture::{Service, Trust};
use super::postgres::Postgres;
use super::slow;
use crate::store::{BUCKET, Store};

#[test]
fn services_that_share_no_folder_share_files_in_an_object_store() {
    let Some(database) = Postgres::start() else {
        return;
    };
    let store = Store::start();
    let files = format!("s3://{BUCKET}/contexts");
    let variables = store.variables();
    let with = |database: &Postgres| {
        Service::with_files(Trust::Trusted, database.url(), &files, &variables)
    };
    let Some(mut service) = with(&database) else {
        return;
    };
    let mut other = service.elsewhere();
    let place = service.place(&format!(
        "{}source_root = \"src\"\nsource_copy_mode = \"all\"\n",
        slow(3)
    ));
    for at in 0..10 {
        place.write(&format!("src/{at}.txt"), &format!("{at}\n"));
    }
    place.write("src/large.bin", &"0123456789abcdef".repeat(3 << 16));
    let registry = service.registry();
    let id = service.detached(&place, &[]);
    let (_, listed) = store.ask(&[], &format!("{BUCKET}?list-type=2"));
    assert_eq!(
        listed.matches("<Key>contexts/files/default/").count(),
        11,
        "{listed}"
    );
    // Whichever has it: when that one is lost, the other has only the store.
    service.until("running");
    service.kill();
    std::thread::sleep(Duration::from_millis(500));
    other.kill();
    other.run();
    let endpoint = format!("endpoint=http://{}", other.address);
    let name = place.says(&["build", "--attach", &id, "--option", &endpoint]);
    assert!(name.contains("@sha256:"), "{name}");
    // Nor is anything sent to the other that the store has.
    place.write("src/3.txt", "other\n");
    let output = place.run(&[
        "build",
        "--builder",
        "union",
        "--registry",
        &registry,
        "--option",
        &endpoint,
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 of 11 files, 6 bytes"), "{said}");
    service.run();
}
