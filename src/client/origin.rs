//! Which web pages may talk to us: judged by `Host` and `Origin`, from the first day.
//!
//! Browsers let any page open a WebSocket to any address, this host's included, and tell us only where the page came
//! from (RFC 6455 section 10.2). A page can also make its own name resolve to 127.0.0.1 (DNS rebinding); then the
//! `Host` it sends gives it away.

use crate::client::http::{Answer, Head};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The rules in force.
#[derive(Clone, Debug)]
pub struct OriginRules {
    /// We listen on a loopback address only.
    pub bound_to_loopback: bool,
    /// Origins of `--allow-origin`, lower case; `*` for any.
    pub allowed: Vec<String>,
}

impl OriginRules {
    /// Judges a request. Gives the origin to be named in the answer's CORS headers, if the request has one.
    ///
    /// # Errors
    /// The refusal to answer with: 403, the reason and the remedy.
    pub fn judge(&self, head: &Head) -> Result<Option<String>, Answer> {
        let host = head.host.as_deref().unwrap_or_default();
        if self.bound_to_loopback && head.host.is_some() && !is_loopback(host_name(host)) && !self.allows_host(host) {
            let text = format!(
                "Host {host:?} is not a name of this machine, and the server listens on a loopback address only \
                 (protection against DNS rebinding). Use localhost in the URL; behind a proxy, start the server with \
                 --allow-origin and the page's origin"
            );
            return Err(Answer::detail(403, &text));
        }
        let Some(origin) = head.origin.as_deref() else {
            return Ok(None);
        };
        if self.allows(origin)
            || is_same(origin, host)
            || authority(origin).is_some_and(|at| is_loopback(host_name(at)))
        {
            return Ok(Some(origin.to_owned()));
        }
        let text = format!(
            "pages of origin {origin:?} may not connect. If they should, start the server with --allow-origin {origin}"
        );
        Err(Answer::detail(403, &text))
    }

    fn allows(&self, origin: &str) -> bool {
        self.allowed
            .iter()
            .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }

    fn allows_host(&self, host: &str) -> bool {
        self.allowed.iter().any(|allowed| {
            let names = authority(allowed).map(host_name);
            allowed == "*" || names.is_some_and(|name| name.eq_ignore_ascii_case(host_name(host)))
        })
    }
}

/// Adds the CORS headers of the original to an answer for a page of `origin`.
pub fn with_cors(answer: Answer, origin: Option<&str>) -> Answer {
    match origin {
        Some(origin) => answer
            .with("access-control-allow-origin", origin.to_owned())
            .with("access-control-allow-credentials", "true".to_owned()),
        None => answer,
    }
}

/// What stands behind `scheme://`.
fn authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}

/// A host without its port: `[::1]:80` is `::1`. Empty where anything but a port stands behind the name, which then is
/// not what it looks like (`localhost:80@evil.example`).
fn host_name(authority: &str) -> &str {
    let (name, behind) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']').unwrap_or_default(),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port) {
        true => name.strip_suffix('.').unwrap_or(name),
        false => "",
    }
}

/// The port of an authority, if it is written out.
fn port(authority: &str) -> Option<&str> {
    let behind = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
    behind.rsplit_once(':').map(|(_, port)| port)
}

/// Whether a page of `origin` was loaded from where it now connects to.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default = match scheme.to_ascii_lowercase().as_str() {
        "http" => "80",
        "https" => "443",
        _ => return false,
    };
    let name = host_name(authority);
    !name.is_empty()
        && name.eq_ignore_ascii_case(host_name(host))
        && port(authority).unwrap_or(default) == port(host).unwrap_or(default)
}

/// Whether a name can only mean this machine (RFC 6761 section 6.3 for `localhost`).
fn is_loopback(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower == "localhost"
        || lower.ends_with(".localhost")
        || lower.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || lower
            .parse::<Ipv6Addr>()
            .is_ok_and(|ip| IpAddr::V6(ip).to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rules: &OriginRules, host: &str, origin: Option<&str>) -> Result<(), String> {
        let head = Head {
            host: Some(host.to_owned()),
            origin: origin.map(str::to_owned),
            ..Head::default()
        };
        rules
            .judge(&head)
            .map(|_| ())
            .map_err(|answer| String::from_utf8(answer.body).unwrap())
    }

    fn local(allowed: &[&str]) -> OriginRules {
        OriginRules {
            bound_to_loopback: true,
            allowed: allowed.iter().map(|origin| (*origin).to_owned()).collect(),
        }
    }

    #[test]
    fn absent_same_and_loopback_origins_pass() {
        let rules = local(&[]);
        for (host, origin) in [
            ("localhost:3002", None),
            ("127.0.0.1:3002", Some("http://localhost:3001")),
            ("[::1]:3002", Some("http://[::1]:3001")),
            ("LOCALHOST", Some("http://127.8.9.1")),
            ("ui.localhost:1", Some("https://ui.localhost")),
            ("localhost.:3002", None),
        ] {
            judged(&rules, host, origin).unwrap();
        }
        let open = OriginRules {
            bound_to_loopback: false,
            allowed: Vec::new(),
        };
        judged(&open, "box.lan:3002", Some("http://box.lan:3002")).unwrap();
        judged(&open, "box.lan", Some("https://box.lan")).unwrap();
        judged(&open, "box.lan", Some("http://box.lan:80")).unwrap();
    }

    #[test]
    fn others_are_refused_with_the_remedy() {
        let rules = local(&[]);
        for origin in [
            "https://evil.example",
            "http://localhost.evil.example",
            "null",
            "http://127.0.0.1.evil.example",
            "http://localhost:80@evil.example",
            "http://[::1].evil.example",
            "localhost",
        ] {
            let text = judged(&rules, "localhost:3002", Some(origin)).unwrap_err();
            assert!(text.contains("--allow-origin") && text.contains(origin), "{text}");
        }
        let text = judged(&rules, "evil.example:3002", None).unwrap_err();
        assert!(text.contains("DNS rebinding"), "{text}");
        judged(&rules, "evil.example:3002", Some("http://evil.example:3002")).unwrap_err();
        judged(&rules, "", None).unwrap_err();
    }

    #[test]
    fn allow_origin_opens_origin_and_host() {
        let rules = local(&["https://dash.example.com"]);
        judged(&rules, "localhost:3002", Some("https://dash.example.com")).unwrap();
        judged(&rules, "dash.example.com", Some("https://dash.example.com")).unwrap();
        judged(&rules, "other.example.com", None).unwrap_err();
        judged(&local(&["null"]), "localhost", Some("null")).unwrap();
        judged(&local(&["*"]), "any.example", Some("https://thing.example")).unwrap();
    }
}
