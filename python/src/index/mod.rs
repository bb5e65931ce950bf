//! The machine's package indexes: pip's configuration, told to uv by environment, where no other process sees it.

mod arguments;
mod credentials;
mod loan;
mod settings;

pub(crate) use arguments::arguments;
pub use credentials::Credentials;
pub(crate) use credentials::percent_decoded;
pub use imagespec_core::login::redacted;
pub use loan::{Loan, indexes, is_about_packages, network};
pub use settings::{Settings, logins_with};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use configparser::ini::Ini;
use imagespec_core::host::Host;
use imagespec_core::login::{IndexLogins, Login};
use imagespec_core::plan::PackageIndex;

/// Variables of the machine that uv is to see as they are.
const PASSED: [&str; 8] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSL_CLIENT_CERT",
    "NETRC",
];
/// Variables that say how the network is reached.
pub const PROXIES: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];

/// Variables of uv that would change what is asked of it.
const WITHHELD: [&str; 6] = [
    "UV_FROZEN",
    "UV_LOCKED",
    "UV_PROJECT",
    "UV_WORKING_DIR",
    "UV_PYTHON_PLATFORM",
    "UV_PYTHON_VERSION",
];
/// Variables of uv that say which packages there are to choose from.
const SOURCES: [&str; 11] = [
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX_STRATEGY",
    "UV_EXCLUDE_NEWER",
    "UV_CONSTRAINT",
    "UV_OVERRIDE",
    "UV_PRERELEASE",
    "UV_RESOLUTION",
];

/// The machine's proxies, by variable.
pub fn proxies(host: &Host) -> Vec<(String, String)> {
    let named = PROXIES.iter().filter_map(|name| {
        let value = host.variable(name)?;
        Some(((*name).to_owned(), value.to_owned()))
    });
    named.collect()
}

/// As [`environment`], with the logins that stood in the declaration's own URLs: the variables say them to uv and to
/// nobody else.
pub(crate) fn environment_with(
    host: &Host,
    index: &PackageIndex,
    logins: &IndexLogins,
) -> BTreeMap<String, String> {
    let login = |url: &String| match logins.get(url) {
        Some(login) => with_login(host, url, login),
        None => url.clone(),
    };
    let index = PackageIndex {
        url: index.url.as_ref().map(login),
        extra_urls: index.extra_urls.iter().map(login).collect(),
        extra_args: index.extra_args.clone(),
    };
    environment(host, &index)
}

/// A URL with its login, in which `${NAME}` has become the value of the machine's variable.
fn with_login(host: &Host, url: &str, login: &Login) -> String {
    let userinfo = host.expanded(&login.userinfo());
    url.replacen("://", &format!("://{userinfo}@"), 1)
}

/// The environment uv is run with: nothing but what it needs.
pub fn environment(host: &Host, index: &PackageIndex) -> BTreeMap<String, String> {
    let passed = |(name, _): &(&String, &String)| {
        (name.starts_with("UV_") && !WITHHELD.contains(&name.as_str()))
            || name.starts_with("XDG_")
            || PASSED.contains(&name.as_str())
            || PROXIES.contains(&name.as_str())
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
    for (pip, uv, older) in [
        ("index-url", "UV_DEFAULT_INDEX", "UV_INDEX_URL"),
        ("extra-index-url", "UV_INDEX", "UV_EXTRA_INDEX_URL"),
        ("trusted-host", "UV_INSECURE_HOST", "UV_INSECURE_HOST"),
    ] {
        if let (Some(value), false) = (words(pip), env.contains_key(older)) {
            env.entry(uv.to_owned()).or_insert(value);
        }
    }
    if let Some(links) = words("find-links") {
        // pip passes over a folder that does not exist, uv does not.
        let exists = |link: &&str| !link.starts_with('/') || Path::new(link).exists();
        let links: Vec<_> = links.split(' ').filter(exists).collect();
        if !links.is_empty() {
            env.entry("UV_FIND_LINKS".to_owned())
                .or_insert_with(|| links.join(","));
        }
    }
    if let Some(certificate) = pip.get("cert") {
        env.entry("SSL_CERT_FILE".to_owned())
            .or_insert_with(|| certificate.clone());
    }
    if let Some(url) = &index.url {
        env.remove("UV_INDEX_URL");
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

/// Whether pip is configured to ask no index.
pub(crate) fn no_index(host: &Host) -> bool {
    let settings = pip_settings(host);
    let value = settings.get("no-index").map(|value| value.to_lowercase());
    value.is_some_and(|value| matches!(value.as_str(), "1" | "true" | "yes" | "on" | "t" | "y"))
}

/// The variables of an [`environment`] that say which packages there are to choose from, without credentials.
pub(crate) fn sources(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let sources = sources_as_written(env);
    sources
        .map(|(name, value)| (name.to_owned(), redacted(value)))
        .collect()
}

fn sources_as_written(env: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    SOURCES
        .into_iter()
        .filter_map(|name| Some((name, env.get(name)?.as_str())))
}

/// pip's global settings, by their long names without dashes in front: files in pip's order, then `PIP_` variables.
fn pip_settings(host: &Host) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for path in pip_files(host) {
        let mut ini = Ini::new_cs();
        ini.set_multiline(true);
        // To pip, `#` and `;` begin a comment only where a line begins with them.
        ini.set_inline_comment_symbols(Some(&[]));
        let Ok(sections) = fs_err::read_to_string(path)
            .map_err(|error| error.to_string())
            .and_then(|text| ini.read(text))
        else {
            continue;
        };
        let sections = ["global", "install"].map(|name| sections.get(name));
        for (key, value) in sections.into_iter().flatten().flatten() {
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
    let mut files = ["/etc/xdg/pip/pip.conf", "/etc/pip.conf"]
        .map(PathBuf::from)
        .to_vec();
    if let (Some(home), None) = (&host.home, &explicit) {
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
            &[
                ("PIP_FIND_LINKS", "/ /nowhere/at/all https://d.example/"),
                ("SECRET", "x"),
                ("UV_FROZEN", "1"),
            ],
            home.path(),
        );
        let env = environment(&machine, &PackageIndex::default());
        assert_eq!(env["UV_DEFAULT_INDEX"], "https://a.example/simple");
        assert_eq!(env["UV_INDEX"], "https://b.example/ https://c.example/");
        assert_eq!(env["UV_FIND_LINKS"], "/,https://d.example/");
        assert!(!env.contains_key("UV_FROZEN"));
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

    #[test]
    fn uvs_own_settings_win_over_pips() {
        let home = tempfile::tempdir().expect("a folder");
        let conf = home.path().join("pip.conf");
        let text = "[global]\nno-index = true\nindex-url = https://u:a#b;c@a.example/simple\n[install]\ntrusted-host = h.example\n";
        fs_err::write(&conf, text).expect("a file");
        let conf = conf.to_string_lossy().into_owned();
        let machine = host(&[("PIP_CONFIG_FILE", &conf)], home.path());
        assert!(no_index(&machine));
        let env = environment(&machine, &PackageIndex::default());
        assert_eq!(env["UV_DEFAULT_INDEX"], "https://u:a#b;c@a.example/simple");
        assert_eq!(env["UV_INSECURE_HOST"], "h.example");
        let variables = [
            ("PIP_CONFIG_FILE", conf.as_str()),
            ("UV_INDEX_URL", "https://x:y@b.example/simple"),
        ];
        let env = environment(&host(&variables, home.path()), &PackageIndex::default());
        assert!(!env.contains_key("UV_DEFAULT_INDEX"));
        assert_eq!(sources(&env)["UV_INDEX_URL"], "https://b.example/simple");
    }
}
