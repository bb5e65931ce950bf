//! The service's pages in a real browser.

use std::path::Path;

use super::browser::Browser;
use super::fixture::{Service, Trust};

/// Where pictures of the pages are kept, to be looked at.
const PICTURES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/pages");

fn keep(browser: &Browser, name: &str) {
    use base64::Engine as _;

    let wide = browser.value("document.documentElement.scrollWidth <= window.innerWidth");
    assert_eq!(wide, true, "{name} is wider than the window");
    let picture = base64::engine::general_purpose::STANDARD.decode(browser.picture());
    fs_err::create_dir_all(PICTURES).expect("a folder");
    let path = Path::new(PICTURES).join(format!("{name}.png"));
    fs_err::write(path, picture.expect("base64")).expect("a file");
}

#[test]
fn pages_show_builds_as_they_happen() {
    let Some(service) = Service::start(Trust::Trusted) else {
        return;
    };
    let commands = "for i in $(seq 1 60); do echo line $i '<b>'; sleep 0.1; done";
    let place = service.place(&format!(
        "[images.app]\npackages = [\"six==1.16.0\"]\ncommands = [\"{commands}\"]\n"
    ));
    for (width, is_dark) in [(1200, false), (420, true)] {
        let Some(browser) = Browser::open(width, is_dark) else {
            return;
        };
        let home = format!("http://{}/", service.address);
        browser.visit(&home);
        browser.until("location.pathname == '/login'");
        keep(&browser, &format!("login-{width}"));
        // By keyboard alone: the field has the focus.
        browser.types("nonsense\u{e007}");
        browser.until("document.querySelector('[role=alert]') !== null");
        browser.types(&service.token);
        browser.types("\u{e007}");
        browser.until("location.pathname == '/'");

        let id = service.detached(&place, &["--force"]);
        browser.visit(&format!("{home}builds/{id}"));
        // Without the page being loaded again.
        browser.value("window.kept = true");
        browser.until("document.body.textContent.includes('line 20 <b>')");
        assert_eq!(browser.value("window.kept"), true);
        browser.value(
            "document.querySelectorAll('details.step').forEach(step => { step.open = true })",
        );
        keep(&browser, &format!("running-{width}"));
        browser.until("document.querySelector('.state').textContent == 'done'");
        let told = "[...document.querySelectorAll('.log span')].filter(line => line.textContent.startsWith('line ')).length";
        assert_eq!(browser.value(told), 60);
        assert_eq!(
            browser.value("document.querySelectorAll('.log b').length"),
            0
        );
        assert_eq!(
            browser.value("document.querySelectorAll('.layers li').length > 5"),
            true
        );
        browser.value("document.getElementById('search').focus()");
        browser.types("line 7 ");
        browser.until(
            "[...document.querySelectorAll('.log span')].filter(line => !line.hidden).length == 1",
        );
        keep(&browser, &format!("done-{width}"));

        let id = service.detached(&place, &["--force", "--tag", &format!("w{width}")]);
        browser.visit(&format!("{home}builds/{id}"));
        browser.value("document.querySelector('.title button').focus()");
        browser.types("\u{e007}");
        browser.until("document.querySelector('.state').textContent == 'cancelled'");
        browser.visit(&home);
        browser.until("document.querySelectorAll('tbody tr').length > 1");
        keep(&browser, &format!("list-{width}"));
        let mut troubles = browser.troubles();
        // A token that nobody knows was meant to be refused.
        troubles.retain(|trouble| {
            !trouble["message"]
                .as_str()
                .is_some_and(|text| text.contains("/login"))
        });
        assert!(troubles.is_empty(), "{troubles:?}");
    }

    // What a page says it says without scripts.
    let cookie = format!("cookie: imagespec_token={}", service.token);
    let id = service.builds()[1]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let page = |arguments: &[&str], path: &str| {
        let all = [&["--header", &cookie], arguments].concat();
        service.ask(None, &all, path)
    };
    let (code, text) = page(&[], &format!("/builds/{id}"));
    assert_eq!(code, 200);
    assert!(
        text.contains("line 60 &lt;b&gt;") && !text.contains("line 60 <b>"),
        "{text}"
    );
    let (code, text) = page(&[], "/?text=app&state=cancelled");
    assert!(
        code == 200 && text.contains("cancelled") && !text.contains(&format!("/builds/{id}")),
        "{text}"
    );
    // Nor does another site send forms here, or anyone without a cookie see anything.
    let crossing = [
        "--request",
        "POST",
        "--header",
        "sec-fetch-site: cross-site",
    ];
    assert_eq!(page(&crossing, &format!("/builds/{id}/retry")).0, 403);
    assert_eq!(service.ask(None, &[], &format!("/builds/{id}")).0, 303);
    let (code, text) = page(&[], "/builds/nothing");
    assert!(
        code == 404 && text.contains("there is no such build"),
        "{text}"
    );
}
