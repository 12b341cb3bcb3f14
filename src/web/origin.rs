//! Which web pages may talk to us: judged by `Host` and `Origin`, from the first day.
//!
//! Browsers let any page open a WebSocket to any address, this host's included, and tell us only where the page came
//! from (RFC 6455 section 10.2). A page can also make its own name resolve to 127.0.0.1 (DNS rebinding); then the
//! `Host` it sends gives it away.

use crate::process::locks::lock;
use crate::process::web_origin::WebOrigin;
use crate::web::http::{Answer, Head};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

/// Most characters of a header that a refusal shows.
const SHOWN_MAX: usize = 200;

/// The rules in force.
#[derive(Clone, Debug)]
pub struct OriginRules {
    /// We listen on a loopback address only.
    pub bound_to_loopback: bool,
    /// The names of this host, lower case. They count where we listen on more than a loopback address.
    pub own_names: Vec<String>,
    pub allowed: AllowedOrigins,
}

/// The origins of `--allow-origin` in their normal form, `*` for any. SIGHUP can change them while the server runs. The
/// lock is held for a copy of a pointer.
#[derive(Clone, Debug, Default)]
pub struct AllowedOrigins(Arc<Mutex<Arc<Vec<String>>>>);

impl AllowedOrigins {
    /// These, for a start.
    pub fn new(origins: &[String]) -> AllowedOrigins {
        let allowed = AllowedOrigins::default();
        allowed.replace(origins);
        allowed
    }

    /// From the next request on these.
    pub fn replace(&self, origins: &[String]) {
        *lock(&self.0) = Arc::new(origins.to_vec());
    }

    fn get(&self) -> Arc<Vec<String>> {
        Arc::clone(&lock(&self.0))
    }
}

impl OriginRules {
    /// Judges a request. Returns the origin to be named in the answer's CORS headers, if the request has one.
    ///
    /// # Errors
    /// The refusal to answer with: 403, the reason and the remedy.
    pub fn judge(&self, head: &Head) -> Result<Option<String>, Answer> {
        let host = head.host.as_deref();
        if let Some(foreign) = host.filter(|host| !self.is_own(host)) {
            return Err(Answer::detail(403, &self.foreign_host(foreign)));
        }
        let Some(text) = head.origin.as_deref() else {
            return Ok(None);
        };
        let shown: String = text.chars().take(SHOWN_MAX).collect();
        let refusal = match WebOrigin::parse(text) {
            Ok(origin) if self.allows(&origin, host.unwrap_or_default()) => return Ok(Some(text.to_owned())),
            _ if self.allows_all() => return Ok(Some(text.to_owned())),
            Ok(origin) => format!(
                "pages of origin {shown:?} may not connect. If they should, start the server with --allow-origin {origin}"
            ),
            Err(why) => format!(
                "Origin {shown:?} is none that a browser sends: {why}. A client that is no browser needs no Origin"
            ),
        };
        Err(Answer::detail(403, &refusal))
    }

    fn allows_all(&self) -> bool {
        self.allowed.get().iter().any(|allowed| allowed == "*")
    }

    fn allows(&self, origin: &WebOrigin, host: &str) -> bool {
        let normal = origin.to_string();
        self.allowed.get().contains(&normal) || is_same(origin, host) || is_loopback(origin.host())
    }

    /// Returns whether a `Host` is this machine, or one of `--allow-origin`. An address is no name that somebody could
    /// make point here, so it passes wherever it can be ours.
    fn is_own(&self, host: &str) -> bool {
        let name = host_name(host).to_ascii_lowercase();
        let ours = || name.parse::<IpAddr>().is_ok() || self.own_names.contains(&name);
        is_loopback(&name) || self.allows_all() || self.allows_host(&name) || !self.bound_to_loopback && ours()
    }

    fn allows_host(&self, name: &str) -> bool {
        let allowed = self.allowed.get();
        let mut origins = allowed.iter().flat_map(|allowed| WebOrigin::parse(allowed));
        !name.is_empty() && origins.any(|origin| without_dot(origin.host()) == name)
    }

    /// What is wrong with a `Host`, and what helps a proxy, and a person.
    fn foreign_host(&self, host: &str) -> String {
        let shown: String = host.chars().take(SHOWN_MAX).collect();
        let (bound, instead) = if self.bound_to_loopback {
            (", and the server listens on a loopback address only", "localhost")
        } else {
            ("", "localhost, or this host's own name or address,")
        };
        let mut text = format!(
            "Host {shown:?} is not a name of this machine{bound} (protection against DNS rebinding). Use {instead} in the \
             URL. A proxy must pass on the Host that it got (nginx: proxy_set_header Host $host;), and the server must be \
             started with --allow-origin and the origin of the page that the browser shows"
        );
        if let Ok(origin) = WebOrigin::parse(&format!("http://{host}")) {
            text.push_str(&format!(
                ". If people should reach the server by this name, start it with --allow-origin {origin}"
            ));
        }
        text
    }
}

/// Adds the CORS headers of the original to an answer for a page of `origin`. `preflight` are the names of headers that
/// its browser asks to send; nothing here reads them, so all are allowed.
pub fn with_cors(answer: Answer, origin: Option<&str>, preflight: Option<&str>) -> Answer {
    let Some(origin) = origin else {
        return answer;
    };
    let answer = answer
        .with("access-control-allow-origin", origin.to_owned())
        .with("access-control-allow-credentials", "true".to_owned());
    match preflight {
        Some(names) => answer.with("access-control-allow-headers", names.to_owned()),
        None => answer,
    }
}

/// A host without its port: `[::1]:80` is `::1`. [`crate::web::http::Head`] has checked what else it is.
fn host_name(authority: &str) -> &str {
    let name = match authority.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    without_dot(name)
}

/// A name without the dot that says that it is a full one.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// The port of an authority, if it is written out.
fn port(authority: &str) -> Option<&str> {
    let behind = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
    behind
        .rsplit_once(':')
        .map(|(_, port)| port)
        .filter(|port| !port.is_empty())
}

/// Returns whether a page of `origin` was loaded from where it now connects to. A `Host` without a port leaves out the
/// one of the page's scheme.
fn is_same(origin: &WebOrigin, host: &str) -> bool {
    let same_port = port(host).map_or(origin.default_port(), |port| port.parse().ok()) == origin.port();
    let name = without_dot(origin.host());
    origin.is_http() && !name.is_empty() && name.eq_ignore_ascii_case(host_name(host)) && same_port
}

/// Returns whether a name can only mean this machine (RFC 6761 section 6.3 for `localhost`).
fn is_loopback(name: &str) -> bool {
    let lower = without_dot(name).to_ascii_lowercase();
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
    use crate::config::Config;
    use crate::config::table::Setting;

    fn judged(rules: &OriginRules, host: &str, origin: Option<&str>) -> Result<(), String> {
        let head = Head {
            host: Some(host.to_owned()),
            origin: origin.map(str::to_owned),
            ..Head::default()
        };
        let detail = |answer: Answer| {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            body["detail"].as_str().unwrap().to_owned()
        };
        rules.judge(&head).map(|_| ()).map_err(detail)
    }

    /// The rules of a server that was started with these flags.
    fn rules(bound_to_loopback: bool, allowed: &[&str]) -> OriginRules {
        let mut config = Config::default();
        for origin in allowed {
            Setting::find("allow-origin").unwrap().set(&mut config, origin).unwrap();
        }
        OriginRules {
            bound_to_loopback,
            own_names: vec!["box".to_owned(), "box.lan".to_owned()],
            allowed: AllowedOrigins::new(&config.allow_origin),
        }
    }

    fn local(allowed: &[&str]) -> OriginRules {
        rules(true, allowed)
    }

    /// The values that a refusal says the flag should have.
    fn remedies(text: &str) -> Vec<&str> {
        let behind = text.split("--allow-origin ").skip(1);
        let values = behind.map(|rest| rest.split(' ').next().unwrap());
        values.filter(|value| *value != "and").collect()
    }

    #[test]
    fn absent_same_and_loopback_origins_pass() {
        let rules_of_loopback = local(&[]);
        for (host, origin) in [
            ("localhost:3002", None),
            ("127.0.0.1:3002", Some("http://localhost:3001")),
            ("[::1]:3002", Some("http://[::1]:3001")),
            ("LOCALHOST", Some("http://127.8.9.1")),
            ("ui.localhost:1", Some("https://ui.localhost")),
            ("localhost.:3002", None),
            ("localhost", Some("tauri://localhost")),
        ] {
            judged(&rules_of_loopback, host, origin).unwrap();
        }
        let open = rules(false, &[]);
        judged(&open, "box.lan:3002", Some("http://box.lan:3002")).unwrap();
        judged(&open, "box.lan", Some("https://box.lan")).unwrap();
        judged(&open, "BOX.", Some("http://Box:80")).unwrap();
        judged(&open, "10.0.0.7:3002", Some("http://10.0.0.7:3002")).unwrap();
        judged(&open, "[fd00::7]", None).unwrap();
        judged(&open, "box.lan", Some("http://box.lan:81")).unwrap_err();
        judged(&open, "box.lan:443", Some("http://box.lan")).unwrap_err();
    }

    #[test]
    fn a_name_that_is_not_this_hosts_is_refused_whatever_is_listened_on() {
        for open in [rules(false, &[]), local(&[])] {
            for host in [
                "evil.example",
                "evil.example:3002",
                "",
                "box.evil.example",
                "localhost.evil.example",
            ] {
                let text = judged(&open, host, Some(&format!("http://{host}"))).unwrap_err();
                assert!(
                    text.contains("DNS rebinding") && text.contains("proxy_set_header Host $host;"),
                    "{text}"
                );
            }
        }
        judged(&local(&[]), "box", None).unwrap_err();
        judged(&local(&[]), "10.0.0.7", None).unwrap_err();
    }

    #[test]
    fn others_are_refused_with_the_remedy() {
        let rules = local(&[]);
        for origin in [
            "https://evil.example",
            "http://localhost.evil.example",
            "null",
            "file://",
            "qrc://",
        ] {
            let text = judged(&rules, "localhost:3002", Some(origin)).unwrap_err();
            assert!(text.ends_with(&format!("--allow-origin {origin}")), "{text}");
        }
        for (origin, right) in [
            ("http://localhost:80@evil.example", "no user name"),
            ("http://[::1].evil.example", "holds no"),
            ("localhost", "begins with a scheme"),
            ("http://localhost:3001/", "write http://localhost:3001."),
            ("", "is not empty"),
        ] {
            let text = judged(&rules, "localhost:3002", Some(origin)).unwrap_err();
            assert!(text.contains(right) && !text.contains("--allow-origin"), "{text}");
        }
    }

    #[test]
    fn allow_origin_opens_origin_and_host() {
        let rules = local(&["https://dash.example.com"]);
        judged(&rules, "localhost:3002", Some("https://dash.example.com")).unwrap();
        judged(&rules, "localhost:3002", Some("HTTPS://Dash.Example.COM:443")).unwrap();
        judged(&rules, "dash.example.com", Some("https://dash.example.com")).unwrap();
        judged(&rules, "other.example.com", None).unwrap_err();
        judged(&local(&["null"]), "localhost", Some("null")).unwrap();
        judged(&local(&["file://"]), "", None).unwrap_err();
        judged(&local(&["*"]), "any.example", Some("https://thing.example")).unwrap();
        judged(&local(&["*"]), "any.example", Some("no origin at all")).unwrap();
    }

    /// Origins and hosts, well-formed and not, put together of parts at random.
    fn any_text(random: &mut fastrand::Rng) -> String {
        const PARTS: [&str; 34] = [
            "http",
            "https",
            "HTTPS",
            "file",
            "qrc",
            "chrome-extension",
            "about",
            "ws",
            "://",
            "://",
            "://",
            ":",
            "/",
            "?",
            "#",
            "@",
            "*",
            ".",
            "-",
            "_",
            "a.example",
            "EVIL.Example",
            "xn--bcher-kva",
            "localhost",
            "[::2]",
            "[2001:db8::1]",
            "80",
            "443",
            "8081",
            "65536",
            "null",
            " ",
            ",",
            ";",
        ];
        (0..random.usize(1..8))
            .map(|_| PARTS[random.usize(..PARTS.len())])
            .collect()
    }

    #[test]
    fn whatever_a_refusal_recommends_is_taken_by_the_flag_and_helps() {
        let mut random = fastrand::Rng::with_seed(13);
        let (mut origins, mut hosts) = (0, 0);
        for _ in 0..100_000 {
            let text = any_text(&mut random);
            for loopback in [true, false] {
                if let Err(refusal) = judged(&rules(loopback, &[]), "localhost", Some(&text)) {
                    for value in remedies(&refusal) {
                        judged(&rules(loopback, &[value]), "localhost", Some(&text)).unwrap();
                        origins += 1;
                    }
                }
                if let Err(refusal) = judged(&rules(loopback, &[]), &text, None) {
                    for value in remedies(&refusal) {
                        judged(&rules(loopback, &[value]), &text, None).unwrap();
                        hosts += 1;
                    }
                }
            }
            // The other way round: what the flag takes lets in that very page.
            if WebOrigin::parse(&text).is_ok() {
                judged(&rules(true, &[&text]), "localhost", Some(&text)).unwrap();
            }
        }
        assert!(origins > 1000 && hosts > 1000, "{origins} {hosts}");
    }
}
