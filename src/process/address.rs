//! Addresses as people write them: the value of `--host`, and where a server is.
//!
//! One parser for every flag of every command, so that what one of them takes, all do.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    host: String,
    port: u16,
}

impl Authority {
    /// `host` is a name or an address, without brackets; an IPv6 address may have a zone.
    pub fn new(host: String, port: u16) -> Authority {
        Authority { host, port }
    }

    /// A name or an address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As the Host header and a URL have it: without the zone, which means something on this host only (RFC 6874
    /// section 1).
    pub fn for_header(&self) -> String {
        let host = self.host.split('%').next().unwrap_or_default();
        Authority::new(host.to_owned(), self.port).to_string()
    }
}

/// `host:port`, with brackets around an IPv6 address.
impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where a server is, as a person writes it: `http://HOST:PORT`, `ws://HOST:PORT/ws/events`, `HOST:PORT` or `HOST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    pub authority: Authority,
    /// As it was written; empty, or begins with `/`.
    pub path: String,
    /// What follows the question mark, as it was written.
    pub query: Option<String>,
}

/// Why an address cannot be used, and what would be right.
type Wrong = String;

impl ServerAddress {
    /// Reads a URL, or the part of one from its host on. Without a port it is the scheme's own, 80; without a scheme it
    /// is `default_port`.
    ///
    /// # Errors
    /// The text cannot be used; the error says why, and what would be right.
    pub fn parse(text: &str, default_port: u16) -> Result<ServerAddress, Wrong> {
        let example = || format!("write HOST:PORT or http://HOST:PORT, for instance localhost:{default_port}");
        if text.is_empty() {
            return Err(format!("it is empty; {}", example()));
        }
        if let Some(strange) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("there is {strange:?} in it; {}", example()));
        }
        let (port, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme_port(scheme).map_err(|why| why + &example())?, rest),
            None => (default_port, text),
        };
        if rest.contains('#') {
            return Err(format!("a part after # belongs to a page; {}", example()));
        }
        let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = match after.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (after, None),
        };
        if authority.contains('@') {
            return Err(format!(
                "a server has no users, so leave out what is before the @; {}",
                example()
            ));
        }
        let (host, given) = split_port(authority).map_err(|why| format!("{why}; {}", example()))?;
        Ok(ServerAddress {
            authority: Authority::new(host_name(host)?, given.map_or(Ok(port), port_number)?),
            path: path.to_owned(),
            query,
        })
    }
}

/// Reads the value of `--host`: a name or an address, where an IPv6 address may have brackets around it and a zone
/// behind it.
///
/// # Errors
/// It is none, or has more than a host; the error says what to write instead.
pub fn parse_host(text: &str) -> Result<String, Wrong> {
    if text.is_empty() {
        return Err("it must not be empty; 0.0.0.0 or :: stands for every address of this host".to_owned());
    }
    if text == "*" {
        return Err("write 0.0.0.0 for every address of this host, or :: to have those of IPv6 too".to_owned());
    }
    // An IPv6 address is full of colons, which mean nothing here.
    if without_zone(text).parse::<Ipv6Addr>().is_ok() {
        return host_name(text);
    }
    if text.contains("://") || text.contains('/') {
        let host = ServerAddress::parse(text, 1).map_or("127.0.0.1".to_owned(), |url| url.authority.host);
        return Err(format!("it is an address, not a URL; write --host {host}"));
    }
    match split_port(text)? {
        (host, None) => host_name(host),
        (host, Some(port)) => {
            let (host, port) = (host_name(host)?, port_number(port)?);
            Err(format!(
                "the port has a flag of its own; write --host {host} --port {port}"
            ))
        }
    }
}

/// The port that a URL of `scheme` means when it has none.
fn scheme_port(scheme: &str) -> Result<u16, Wrong> {
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => Ok(80),
        "https" | "wss" => Err(
            "this command speaks no TLS; ask the server itself on its own host instead of the proxy before it; "
                .to_owned(),
        ),
        "" => Err("the scheme is missing; ".to_owned()),
        _ => Err("the scheme must be http or ws; ".to_owned()),
    }
}

/// The host and what follows its colon. The brackets of an IPv6 address are taken off.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), Wrong> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the bracket ] is missing")?;
        if without_zone(host).parse::<Ipv6Addr>().is_err() {
            return Err("only an IPv6 address stands in brackets".to_owned());
        }
        return match (after, after.strip_prefix(':')) {
            ("", _) => Ok((host, None)),
            (_, Some(port)) => Ok((host, Some(port))),
            (_, None) => Err("a port begins with a colon".to_owned()),
        };
    }
    if authority.matches(':').count() > 1 {
        return Err("write an IPv6 address in brackets, as in [::1]".to_owned());
    }
    match authority.split_once(':') {
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn port_number(text: &str) -> Result<u16, Wrong> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(format!("the port is {text:?}; write a whole number from 1 to 65535")),
    }
}

fn without_zone(host: &str) -> &str {
    host.split('%').next().unwrap_or_default()
}

/// The host as the system's look-up takes it.
fn host_name(host: &str) -> Result<String, Wrong> {
    if host.is_empty() {
        return Err("the host is missing; write localhost for this one".to_owned());
    }
    if let Some((address, zone)) = host.split_once('%') {
        // A URL writes the percent sign of a zone as %25 (RFC 6874 section 2); people write it as it is.
        let zone = zone.strip_prefix("25").filter(|zone| !zone.is_empty()).unwrap_or(zone);
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
        if address.parse::<Ipv6Addr>().is_err() || zone.is_empty() || !zone.chars().all(is_word) {
            return Err("a % stands before the zone of an IPv6 address only, as in fe80::1%eth0".to_owned());
        }
        return Ok(format!("{address}%{zone}"));
    }
    if host.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv4Addr>().is_ok() {
        return Ok(host.to_owned());
    }
    if !host.is_ascii() {
        return Err("write the name in its ASCII form, which begins with xn--".to_owned());
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if host.len() > 253 || !host.chars().all(is_word) {
        return Err(format!("{host:?} is no host's name or address"));
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Host, port, path with query; or a part of what is said.
    type Expected = Result<(&'static str, u16, &'static str), &'static str>;

    /// What a person writes, and what becomes of it.
    const SERVERS: &[(&str, Expected)] = &[
        ("localhost:3002", Ok(("localhost", 3002, ""))),
        ("localhost", Ok(("localhost", 3002, ""))),
        ("10.0.0.1", Ok(("10.0.0.1", 3002, ""))),
        ("localhost:3005/", Ok(("localhost", 3005, "/"))),
        ("localhost/ws/events", Ok(("localhost", 3002, "/ws/events"))),
        ("localhost?a=b", Ok(("localhost", 3002, "?a=b"))),
        ("http://localhost", Ok(("localhost", 80, ""))),
        ("http://localhost:3002/", Ok(("localhost", 3002, "/"))),
        ("HTTP://localhost:1", Ok(("localhost", 1, ""))),
        (
            "ws://10.0.0.1:3002/ws/events?since=a:1",
            Ok(("10.0.0.1", 3002, "/ws/events?since=a:1")),
        ),
        ("ws://dash_1.example.com./x", Ok(("dash_1.example.com.", 80, "/x"))),
        ("[::1]", Ok(("::1", 3002, ""))),
        ("[::1]:80/", Ok(("::1", 80, "/"))),
        (
            "ws://[fe80::1%25eth0]:3002/ws/events",
            Ok(("fe80::1%eth0", 3002, "/ws/events")),
        ),
        ("http://[fe80::1%eth0]:3002", Ok(("fe80::1%eth0", 3002, ""))),
        ("", Err("it is empty; write HOST:PORT")),
        (" localhost", Err("' ' in it")),
        ("localhost\n", Err("'\\n' in it")),
        ("https://localhost", Err("no TLS")),
        ("wss://localhost/ws/events", Err("no TLS")),
        ("ftp://localhost", Err("the scheme must be http or ws")),
        ("://localhost", Err("the scheme is missing")),
        ("http://", Err("the host is missing")),
        ("//localhost", Err("the host is missing")),
        (":3002", Err("the host is missing")),
        ("localhost:", Err("the port is \"\"")),
        ("localhost:0", Err("from 1 to 65535")),
        ("localhost:99999", Err("from 1 to 65535")),
        ("localhost:+80", Err("from 1 to 65535")),
        ("localhost:-1", Err("from 1 to 65535")),
        ("localhost:http", Err("from 1 to 65535")),
        ("localhost:80:90", Err("in brackets")),
        ("::1", Err("in brackets")),
        ("::1:3002", Err("in brackets")),
        ("[::1", Err("the bracket ] is missing")),
        ("[::1]3002", Err("begins with a colon")),
        ("[localhost]:1", Err("only an IPv6 address")),
        ("[10.0.0.1]:1", Err("only an IPv6 address")),
        ("[::1%]", Err("the zone")),
        ("me:secret@localhost:1", Err("no users")),
        ("localhost:1/#top", Err("after #")),
        ("münchen.example", Err("xn--")),
        ("a,b:1", Err("is no host's name")),
        ("%31:1", Err("the zone")),
    ];

    #[test]
    fn a_servers_address_is_read_as_people_write_it() {
        for (text, expected) in SERVERS {
            let read = ServerAddress::parse(text, 3002);
            match (&read, expected) {
                (Ok(read), Ok((host, port, rest))) => {
                    let query = read.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
                    assert_eq!(read.authority, Authority::new((*host).to_owned(), *port), "{text}");
                    assert_eq!(format!("{}{query}", read.path), *rest, "{text}");
                }
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                _ => panic!("{text}: {read:?}"),
            }
        }
    }

    #[test]
    fn a_host_is_an_address_or_a_name_and_everything_else_is_explained() {
        for (text, expected) in [
            ("127.0.0.1", Ok("127.0.0.1")),
            ("localhost", Ok("localhost")),
            ("0.0.0.0", Ok("0.0.0.0")),
            ("::", Ok("::")),
            ("::1", Ok("::1")),
            ("[::1]", Ok("::1")),
            ("fe80::1%eth0", Ok("fe80::1%eth0")),
            ("[fe80::1%eth0]", Ok("fe80::1%eth0")),
            ("my_host-1.lan", Ok("my_host-1.lan")),
            ("", Err("must not be empty")),
            ("*", Err("write 0.0.0.0 for every address")),
            ("127.0.0.1:3005", Err("write --host 127.0.0.1 --port 3005")),
            ("localhost:3005", Err("write --host localhost --port 3005")),
            ("[::1]:3005", Err("write --host ::1 --port 3005")),
            ("localhost:", Err("the port is \"\"")),
            (":3005", Err("the host is missing")),
            ("http://localhost:3002", Err("not a URL; write --host localhost")),
            ("wss://localhost", Err("not a URL")),
            ("localhost/", Err("not a URL; write --host localhost")),
            ("192.168.0.0/16", Err("not a URL; write --host 192.168.0.0")),
            ("[::1", Err("the bracket ] is missing")),
            ("[localhost]", Err("only an IPv6 address")),
            ("local host", Err("is no host's name")),
            ("127.0.0.1,::1", Err("in brackets")),
            ("::g", Err("in brackets")),
            ("münchen", Err("xn--")),
        ] {
            let read = parse_host(text);
            match (&read, expected) {
                (Ok(read), Ok(host)) => assert_eq!(read, host, "{text}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                _ => panic!("{text}: {read:?}"),
            }
        }
    }

    #[test]
    fn brackets_are_shown_and_a_zone_stays_at_home() {
        let shown = |host: &str| {
            let authority = Authority::new(host.to_owned(), 80);
            (authority.to_string(), authority.for_header())
        };
        let both = |text: &str| (text.to_owned(), text.to_owned());
        assert_eq!(shown("localhost"), both("localhost:80"));
        assert_eq!(shown("::1"), both("[::1]:80"));
        assert_eq!(
            shown("fe80::1%eth0"),
            ("[fe80::1%eth0]:80".to_owned(), "[fe80::1]:80".to_owned())
        );
    }
}
