//! The origin of a web page, as browsers write it into `Origin` and as `--allow-origin` names it (RFC 6454).
//!
//! The flag and the header are read by the same function, so the flag takes whatever a browser can send, and nothing
//! else.

use std::fmt;
use std::net::Ipv6Addr;

/// Longest host, in bytes: DNS names have at most 253, and identifiers of browser extensions fewer.
const HOST_BYTES_MAX: usize = 253;
/// Longest scheme, in bytes.
const SCHEME_BYTES_MAX: usize = 64;

/// One origin in its normal form: lower case, without the scheme's default port. Two pages have the same origin if and
/// only if their normal forms are equal (RFC 6454 section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// A page without an origin: a sandboxed frame, a file in most browsers (RFC 6454 section 7.3).
    Null,
    Tuple {
        scheme: String,
        /// An IPv6 address is in brackets. Empty where the scheme has no hosts, as `file` and `qrc`.
        host: String,
        /// Only where it is not the scheme's default.
        port: Option<u16>,
    },
}

/// Why a text is no origin. The text for people names what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAnOrigin {
    Empty,
    NotAscii,
    Character(char),
    /// There is no scheme, but a host.
    NoScheme(String),
    /// There is a scheme, but of addresses that are no origins, as `about:blank`.
    Opaque(String),
    /// Neither.
    Unreadable,
    /// Something stands behind the port; what would be right, if the rest is.
    Path(String),
    UserName,
    Pattern,
    NoHost(String),
    TooLong,
    Port,
}

impl fmt::Display for NotAnOrigin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotAnOrigin::Empty => out.write_str("an origin is not empty: write one such as https://dash.example.com"),
            NotAnOrigin::NotAscii => out.write_str("a browser sends a name in ASCII: write it as it begins with xn--"),
            NotAnOrigin::Character(character) => write!(out, "an origin holds no {character:?}"),
            NotAnOrigin::NoScheme(host) => {
                write!(
                    out,
                    "an origin begins with a scheme: write https://{host} or http://{host}"
                )
            }
            NotAnOrigin::Opaque(scheme) => write!(
                out,
                "a page of {scheme}: has the origin of the page that opened it, or null"
            ),
            NotAnOrigin::Unreadable => out.write_str("an origin is one such as https://dash.example.com, or null"),
            NotAnOrigin::Path(right) => write!(out, "an origin ends after the host and the port: write {right}"),
            NotAnOrigin::UserName => out.write_str("an origin has no user name"),
            NotAnOrigin::Pattern => out.write_str("a pattern matches no page: name each origin, or write * for any"),
            NotAnOrigin::NoHost(scheme) => write!(out, "an origin of {scheme} has a host"),
            NotAnOrigin::TooLong => write!(out, "an origin's host has at most {HOST_BYTES_MAX} bytes"),
            NotAnOrigin::Port => out.write_str("a port is a number from 0 to 65535"),
        }
    }
}

impl std::error::Error for NotAnOrigin {}

impl WebOrigin {
    /// Reads an origin.
    ///
    /// # Errors
    /// No browser sends this as an origin.
    pub fn parse(text: &str) -> Result<WebOrigin, NotAnOrigin> {
        if text.is_empty() {
            return Err(NotAnOrigin::Empty);
        }
        if text == "null" {
            return Ok(WebOrigin(Form::Null));
        }
        if !text.is_ascii() {
            return Err(NotAnOrigin::NotAscii);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(without_scheme(text));
        };
        let scheme = scheme.to_ascii_lowercase();
        if !is_scheme(&scheme) {
            return Err(NotAnOrigin::Unreadable);
        }
        let authority = &rest[..rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len())];
        let origin = tuple(scheme, authority)?;
        if authority.len() < rest.len() {
            return Err(NotAnOrigin::Path(origin.to_string()));
        }
        Ok(origin)
    }

    /// The host without brackets, empty where there is none.
    pub fn host(&self) -> &str {
        match &self.0 {
            Form::Null => "",
            Form::Tuple { host, .. } => host.trim_start_matches('[').trim_end_matches(']'),
        }
    }

    /// The port in use, where it is known.
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            Form::Null => None,
            Form::Tuple { port, .. } => port.or(self.default_port()),
        }
    }

    /// The port that its scheme means when none is written.
    pub fn default_port(&self) -> Option<u16> {
        match &self.0 {
            Form::Null => None,
            Form::Tuple { scheme, .. } => default_port(scheme),
        }
    }

    /// Returns whether its pages come by HTTP.
    pub fn is_http(&self) -> bool {
        matches!(&self.0, Form::Tuple { scheme, .. } if scheme == "http" || scheme == "https")
    }
}

/// The normal form.
impl fmt::Display for WebOrigin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Null => out.write_str("null"),
            Form::Tuple { scheme, host, port } => {
                write!(out, "{scheme}://{host}")?;
                port.map_or(Ok(()), |port| write!(out, ":{port}"))
            }
        }
    }
}

fn tuple(scheme: String, authority: &str) -> Result<WebOrigin, NotAnOrigin> {
    if authority.contains('@') {
        return Err(NotAnOrigin::UserName);
    }
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => (&authority[..colon], &authority[colon + 1..]),
        _ => (authority, ""),
    };
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse::<u16>().map_err(|_| NotAnOrigin::Port)?)
        }
        _ => return Err(NotAnOrigin::Port),
    };
    let host = read_host(host)?;
    if host.is_empty() && (port.is_some() || default_port(&scheme).is_some()) {
        return Err(NotAnOrigin::NoHost(scheme));
    }
    let port = port.filter(|port| default_port(&scheme) != Some(*port));
    Ok(WebOrigin(Form::Tuple { scheme, host, port }))
}

/// The normal form of a host. Only what DNS names and identifiers of extensions are made of, so that an origin can be
/// shown in a command line that a person copies.
fn read_host(text: &str) -> Result<String, NotAnOrigin> {
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| NotAnOrigin::Unreadable)?;
        return Ok(format!("[{address}]"));
    }
    if text.len() > HOST_BYTES_MAX {
        return Err(NotAnOrigin::TooLong);
    }
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_' | '~');
    let mut labels = text.strip_suffix('.').unwrap_or(text).split('.');
    match text.chars().find(|character| !is_plain(*character)) {
        None if !text.is_empty() && labels.any(str::is_empty) => Err(NotAnOrigin::Unreadable),
        None => Ok(text.to_ascii_lowercase()),
        Some('*') => Err(NotAnOrigin::Pattern),
        Some(character) => Err(NotAnOrigin::Character(character)),
    }
}

/// What is wrong with a text in which no `://` is.
fn without_scheme(text: &str) -> NotAnOrigin {
    if let Ok(origin) = tuple("x".to_owned(), text)
        && !origin.host().is_empty()
    {
        let shown = origin.to_string();
        return NotAnOrigin::NoScheme(shown.trim_start_matches("x://").to_owned());
    }
    match text.split_once(':') {
        Some((scheme, _)) if is_scheme(&scheme.to_ascii_lowercase()) => NotAnOrigin::Opaque(scheme.to_owned()),
        _ => NotAnOrigin::Unreadable,
    }
}

/// RFC 3986 section 3.1, in lower case.
fn is_scheme(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.');
    text.len() <= SCHEME_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(is_part)
}

/// The ports that browsers leave out (the URL standard's special schemes).
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_an_origin_have_one_normal_form() {
        for (text, normal) in [
            ("null", "null"),
            ("https://Dash.Example.com", "https://dash.example.com"),
            ("HTTPS://dash.example.com:443", "https://dash.example.com"),
            ("https://dash.example.com:0443", "https://dash.example.com"),
            ("http://dash.example.com:443", "http://dash.example.com:443"),
            ("http://a:", "http://a"),
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("http://[0:0::1]:80", "http://[::1]"),
            ("file://", "file://"),
            ("qrc://", "qrc://"),
            ("tauri://localhost", "tauri://localhost"),
            ("moz-extension://1b2c-3d", "moz-extension://1b2c-3d"),
            ("http://my_upstream", "http://my_upstream"),
            ("http://a.example.", "http://a.example."),
        ] {
            assert_eq!(WebOrigin::parse(text).unwrap().to_string(), normal);
            assert_eq!(WebOrigin::parse(normal).unwrap().to_string(), normal);
        }
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        use NotAnOrigin::*;
        let right = |text: &str| Path(text.to_owned());
        for (text, why) in [
            ("", Empty),
            ("Null", NoScheme("null".to_owned())),
            ("http://localhost:8081/", right("http://localhost:8081")),
            ("http://A:80/b?c#d", right("http://a")),
            ("https://a?b", right("https://a")),
            ("file:///home", right("file://")),
            ("localhost", NoScheme("localhost".to_owned())),
            ("a.example:80", NoScheme("a.example:80".to_owned())),
            ("about:blank", Opaque("about".to_owned())),
            ("data:text/html,x", Opaque("data".to_owned())),
            ("://a", Unreadable),
            ("http://a..b", Unreadable),
            ("http://.", Unreadable),
            ("1://a", Unreadable),
            ("http://[::1", Character('[')),
            ("http://[::1].evil.example", Character('[')),
            ("http://[v1]", Unreadable),
            ("http://localhost:80@evil.example", UserName),
            ("https://*.example.com", Pattern),
            ("https://", NoHost("https".to_owned())),
            ("x://:80", NoHost("x".to_owned())),
            ("https://a:65536", Port),
            ("https://a:b", Port),
            ("https://a;reboot", Character(';')),
            ("https://a https://b", Character(' ')),
            ("https://ä", NotAscii),
        ] {
            assert_eq!(WebOrigin::parse(text).unwrap_err(), why, "{text}");
        }
        assert_eq!(
            WebOrigin::parse(&format!("http://{}", "a".repeat(254))).unwrap_err(),
            TooLong
        );
    }
}
