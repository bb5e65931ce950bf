//! Which servers may be asked on behalf of people who are not trusted: those of the project, and those that all the world
//! may ask. A plan must not have the service ask what only the service can reach.

use std::net::{IpAddr, ToSocketAddrs as _};

use imagespec_core::error::BuildError;
use url::{Host, Url};

use super::TRUST;
use crate::settings::Limits;

/// Refuses a URL that is neither at an index of the project nor at a server of the open net, over TLS.
///
/// What a name means is looked up here and again by whoever asks: a name that changes in between meets a server without
/// its certificate.
pub(super) fn open(text: &str, limits: &Limits) -> Result<(), BuildError> {
    let refused = || {
        let message =
            format!("the service asks no such server for people whom it does not trust: `{text}`");
        let hint = "whoever runs the service gives indexes to the project: `indexes`";
        Err(BuildError::input(message).hint(hint).hint(TRUST))
    };
    let Ok(url) = text.parse::<Url>() else {
        return refused();
    };
    let origin = url.origin();
    let mut indexes = limits
        .indexes
        .iter()
        .filter_map(|index| index.parse::<Url>().ok());
    if indexes.any(|index| index.origin() == origin && origin.is_tuple()) {
        return Ok(());
    }
    let Some(Host::Domain(name)) = url.host() else {
        return refused();
    };
    let is_private = !name.contains('.')
        || [".localhost", ".local", ".internal", ".svc"]
            .iter()
            .any(|end| name.trim_end_matches('.').ends_with(end));
    if url.scheme() != "https" || is_private {
        return refused();
    }
    let port = url.port_or_known_default().unwrap_or(443);
    // A name that means nothing here is a proxy's to know.
    let mut addresses = (name, port).to_socket_addrs().into_iter().flatten();
    if addresses.any(|address| is_inside(address.ip())) {
        return refused();
    }
    Ok(())
}

/// Whether an address is one of this machine or of a network that is not the open one.
fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast()
                || first == 0
                || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(address) => {
            if let Some(inner) = address.to_ipv4_mapped() {
                return is_inside(IpAddr::V4(inner));
            }
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_its_networks_are_inside() {
        for (address, inside) in [
            ("127.0.0.1", true),
            ("0.0.0.0", true),
            ("10.1.2.3", true),
            ("100.100.0.1", true),
            ("169.254.169.254", true),
            ("192.168.0.1", true),
            ("8.8.8.8", false),
            ("100.128.0.1", false),
            ("::1", true),
            ("::", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("::ffff:10.0.0.1", true),
            ("2001:4860:4860::8888", false),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(is_inside(parsed), inside, "{address}");
        }
    }
}
