//! Chromium without a screen, told what to do by `WebDriver`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture::free;
use crate::place::{Running, has};

/// What keeps a browser from asking for anything that nobody asked it for.
const ARGUMENTS: [&str; 8] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with a window.
pub(super) struct Browser {
    driver: String,
    session: String,
    _process: Running,
    _profile: TempDir,
}

impl Browser {
    /// Opens one; without its programs a test is skipped, unless `CI` is set.
    pub(super) fn open(width: u32, is_dark: bool) -> Option<Self> {
        if !has("chromedriver") {
            return None;
        }
        let address = free();
        let (_, port) = address.rsplit_once(':').expect("a port");
        let process = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let process = Running(process);
        let profile = tempfile::tempdir().expect("a folder");
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        arguments.push(format!("--window-size={width},900"));
        if is_dark {
            arguments.push("--force-dark-mode".to_owned());
        }
        let mut browser = Self {
            driver: format!("http://{address}"),
            session: String::new(),
            _process: process,
            _profile: profile,
        };
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let deadline = Instant::now() + Duration::from_secs(30);
        let session = loop {
            let made = browser.ask("/session", Some(&wanted));
            if let Some(session) = made["sessionId"].as_str() {
                break session.to_owned();
            }
            assert!(Instant::now() < deadline, "{made}");
            std::thread::sleep(Duration::from_millis(100));
        };
        browser.session = format!("/session/{session}");
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        browser.say(
            "/goog/cdp/execute",
            &json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": size}),
        );
        Some(browser)
    }

    fn ask(&self, path: &str, body: Option<&Value>) -> Value {
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "30"]);
        if let Some(body) = body {
            command.args(["--json", &body.to_string()]);
        }
        let url = format!("{}{path}", self.driver);
        let output = command.arg(url).output().expect("curl");
        let mut answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        answer["value"].take()
    }

    fn say(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask(&format!("{}{path}", self.session), Some(body));
        assert!(answer["error"].is_null(), "{path} {body}: {answer}");
        answer
    }

    pub(super) fn visit(&self, url: &str) {
        self.say("/url", &json!({"url": url}));
    }

    /// What an expression of its page is.
    pub(super) fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        self.say("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true.
    pub(super) fn until(&self, expression: &str) {
        let deadline = Instant::now() + Duration::from_mins(3);
        while self.value(expression) != true {
            let page = self.value("document.body.innerText");
            assert!(Instant::now() < deadline, "{expression}: {page}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types with the keyboard, wherever it is.
    pub(super) fn types(&self, text: &str) {
        let keys = text.chars().flat_map(|key| {
            let key = key.to_string();
            [
                json!({"type": "keyDown", "value": key}),
                json!({"type": "keyUp", "value": key}),
            ]
        });
        let keys: Vec<_> = keys.collect();
        self.say(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]}),
        );
    }

    /// A picture of the page, as PNG in base64.
    pub(super) fn picture(&self) -> String {
        let taken = self.say(
            "/goog/cdp/execute",
            &json!({"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": true}}),
        );
        taken["data"].as_str().expect("a picture").to_owned()
    }

    /// What went wrong on its pages.
    pub(super) fn troubles(&self) -> Vec<Value> {
        let mut log = self.say("/se/log", &json!({"type": "browser"}));
        let all = log.as_array_mut().map(std::mem::take).unwrap_or_default();
        let bad = |entry: &Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        all.into_iter().filter(bad).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is the driver's to end.
        let ended = Command::new("curl")
            .args(["--silent", "--max-time", "10", "--request", "DELETE"])
            .arg(format!("{}{}", self.driver, self.session))
            .stdout(Stdio::null())
            .status();
        drop(ended);
    }
}
