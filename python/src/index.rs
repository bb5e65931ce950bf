//! The machine's package indexes: pip's configuration, told to uv by environment, where no other process sees it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use configparser::ini::Ini;
use imagespec_core::host::Host;
use imagespec_core::plan::PackageIndex;

/// Variables of the machine that uv is to see as they are.
const PASSED: [&str; 14] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];

/// The environment uv is run with: nothing but what it needs.
pub fn environment(host: &Host, index: &PackageIndex) -> BTreeMap<String, String> {
    let passed = |(name, _): &(&String, &String)| {
        name.starts_with("UV_") || name.starts_with("XDG_") || PASSED.contains(&name.as_str())
    };
    let mut env: BTreeMap<_, _> = host
        .variables
        .iter()
        .filter(passed)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let pip = pip_settings(host);
    let words = |name: &str| {
        pip.get(name)
            .map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    for (pip, uv) in [
        ("index-url", "UV_DEFAULT_INDEX"),
        ("extra-index-url", "UV_INDEX"),
        ("trusted-host", "UV_INSECURE_HOST"),
    ] {
        if let Some(value) = words(pip) {
            env.entry(uv.to_owned()).or_insert(value);
        }
    }
    if let Some(links) = words("find-links") {
        env.entry("UV_FIND_LINKS".to_owned())
            .or_insert_with(|| links.replace(' ', ","));
    }
    if let Some(certificate) = pip.get("cert") {
        env.entry("SSL_CERT_FILE".to_owned())
            .or_insert_with(|| certificate.clone());
    }
    if pip
        .get("no-index")
        .is_some_and(|value| matches!(value.as_str(), "1" | "true" | "yes" | "on"))
    {
        env.insert("UV_NO_INDEX".to_owned(), "1".to_owned());
    }
    if let Some(url) = &index.url {
        env.insert("UV_DEFAULT_INDEX".to_owned(), url.clone());
    }
    if !index.extra_urls.is_empty() {
        env.insert("UV_INDEX".to_owned(), index.extra_urls.join(" "));
    }
    env.insert("UV_SYSTEM_CERTS".to_owned(), "1".to_owned());
    env.insert("UV_NO_PROGRESS".to_owned(), "1".to_owned());
    env.insert("UV_PYTHON_DOWNLOADS".to_owned(), "never".to_owned());
    env.insert(
        "UV_CACHE_DIR".to_owned(),
        host.cache_dir.join("uv").to_string_lossy().into_owned(),
    );
    env.insert("NO_COLOR".to_owned(), "1".to_owned());
    env
}

/// pip's global settings, by their long names without dashes in front: files in pip's order, then `PIP_` variables.
fn pip_settings(host: &Host) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for path in pip_files(host) {
        let mut ini = Ini::new_cs();
        ini.set_multiline(true);
        let Ok(sections) = fs_err::read_to_string(path)
            .map_err(|error| error.to_string())
            .and_then(|text| ini.read(text))
        else {
            continue;
        };
        for (key, value) in sections.get("global").into_iter().flatten() {
            if let Some(value) = value {
                settings.insert(
                    key.replace('_', "-").to_lowercase(),
                    value.trim().to_owned(),
                );
            }
        }
    }
    for (name, value) in &host.variables {
        if let (Some(key), false) = (name.strip_prefix("PIP_"), value.is_empty()) {
            settings.insert(key.replace('_', "-").to_lowercase(), value.clone());
        }
    }
    settings
}

/// pip's configuration files, each overriding those before it.
fn pip_files(host: &Host) -> Vec<PathBuf> {
    let explicit = host.variable("PIP_CONFIG_FILE").map(PathBuf::from);
    if explicit.as_deref() == Some(Path::new("/dev/null")) {
        return Vec::new();
    }
    let mut files = vec![PathBuf::from("/etc/pip.conf")];
    if let Some(home) = &host.home {
        let config = host
            .variable("XDG_CONFIG_HOME")
            .map_or_else(|| home.join(".config"), PathBuf::from);
        files.extend([home.join(".pip/pip.conf"), config.join("pip/pip.conf")]);
    }
    files.extend(
        host.variable("VIRTUAL_ENV")
            .map(|venv| Path::new(venv).join("pip.conf")),
    );
    files.extend(explicit);
    files
}

/// `text` with the user and password of every URL in it left out.
pub fn redacted(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || "`'\"".contains(c))
            .unwrap_or(after.len());
        let host = after[..end].rfind('@').map_or(0, |at| at + 1);
        rest = &after[host..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(variables: &[(&str, &str)], home: &Path) -> Host {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Host {
            variables,
            home: Some(home.to_path_buf()),
            ..Host::default()
        }
    }

    #[test]
    fn pips_settings_reach_uv_and_the_spec_wins() {
        let home = tempfile::tempdir().expect("a folder");
        fs_err::create_dir_all(home.path().join(".config/pip")).expect("a folder");
        let file = "[global]\nindex-url = https://a.example/simple\nextra-index-url =\n    https://b.example/\n    https://c.example/\n";
        fs_err::write(home.path().join(".config/pip/pip.conf"), file).expect("a file");
        let machine = host(
            &[("PIP_FIND_LINKS", "/one /two"), ("SECRET", "x")],
            home.path(),
        );
        let env = environment(&machine, &PackageIndex::default());
        assert_eq!(env["UV_DEFAULT_INDEX"], "https://a.example/simple");
        assert_eq!(env["UV_INDEX"], "https://b.example/ https://c.example/");
        assert_eq!(env["UV_FIND_LINKS"], "/one,/two");
        assert!(!env.contains_key("SECRET"));
        let index = PackageIndex {
            url: Some("https://d.example/".into()),
            ..PackageIndex::default()
        };
        assert_eq!(
            environment(&machine, &index)["UV_DEFAULT_INDEX"],
            "https://d.example/"
        );
        let overridden = host(&[("PIP_INDEX_URL", "https://e.example/")], home.path());
        assert_eq!(
            environment(&overridden, &PackageIndex::default())["UV_DEFAULT_INDEX"],
            "https://e.example/"
        );
    }

    #[test]
    fn no_password_survives_redaction() {
        let text =
            "a https://me:pass@x.example/simple, `http://u:p@y.example` and https://z.example/@v";
        assert_eq!(
            redacted(text),
            "a https://x.example/simple, `http://y.example` and https://z.example/@v"
        );
    }
}
