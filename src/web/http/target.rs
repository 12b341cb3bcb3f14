//! What a request asks for: the four forms of a target (RFC 9112 section 3.2), and hosts.

use crate::web::http::answer::Answer;
use std::net::Ipv6Addr;

/// What a request may ask of a page that can be read.
pub const READ_METHODS: &str = "GET, HEAD, OPTIONS";

/// A request's target (RFC 9112 section 3.2).
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// In absolute-form only.
    pub authority: Option<&'a str>,
    /// Without the query; `*` for the whole server.
    pub path: &'a str,
    pub query: &'a str,
}

impl<'a> Target<'a> {
    /// Reads the target of a request with this method.
    ///
    /// # Errors
    /// The refusal to answer with: 400, or 405 for CONNECT.
    pub fn parse(method: &str, text: &'a str) -> Result<Target<'a>, Answer> {
        let of_path = |authority, rest: &'a str| {
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            Target { authority, path, query }
        };
        if text.contains('#') {
            return Err(Answer::detail(400, "the request's target has a fragment"));
        }
        match method {
            // Authority-form, which is for proxies.
            "CONNECT" if is_host(text) => {
                let answer = Answer::detail(405, "this server is no proxy");
                return Err(answer.with("allow", READ_METHODS.to_owned()));
            }
            "CONNECT" => return Err(Answer::detail(400, "the target of CONNECT is a host and a port")),
            "OPTIONS" if text == "*" => return Ok(of_path(None, text)),
            _ if text.starts_with('/') => return Ok(of_path(None, text)),
            _ => {}
        }
        let no_target = || {
            Answer::detail(
                400,
                "the request's target begins with / or with http://, or is * for OPTIONS",
            )
        };
        let (scheme, behind) = text.split_once("://").ok_or_else(no_target)?;
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(Answer::detail(
                400,
                "a target with a scheme begins with http:// or https://",
            ));
        }
        let (authority, rest) = behind.split_at(behind.find(['/', '?']).unwrap_or(behind.len()));
        if authority.is_empty() || authority.starts_with(':') || !is_host(authority) {
            return Err(Answer::detail(
                400,
                "the request's target has no host that can be read, or a user name",
            ));
        }
        let target = of_path(Some(authority), rest);
        let path = match (target.path, method, rest) {
            ("", "OPTIONS", "") => "*",
            ("", ..) => "/",
            (path, ..) => path,
        };
        Ok(Target { path, ..target })
    }
}

/// Returns whether a text is `uri-host [ ":" port ]` or empty (RFC 9110 section 7.2, RFC 3986 section 3.2.2).
pub fn is_host(text: &str) -> bool {
    let (name, behind) = match text.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((address, behind)) if address.parse::<Ipv6Addr>().is_ok() => ("", behind),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    name.bytes().all(is_part) && (behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_target_is_read_as_the_rfc_says() {
        let parts = |method, text| {
            let target = Target::parse(method, text).map_err(|answer| answer.status)?;
            Ok((target.authority.unwrap_or("-"), target.path, target.query))
        };
        for (method, text, wanted) in [
            ("GET", "/a?b?c", Ok(("-", "/a", "b?c"))),
            ("GET", "//evil/a", Ok(("-", "//evil/a", ""))),
            ("GET", "http://a:1/b?c", Ok(("a:1", "/b", "c"))),
            ("GET", "HTTP://[::1]", Ok(("[::1]", "/", ""))),
            ("GET", "http://a?c", Ok(("a", "/", "c"))),
            ("OPTIONS", "http://a?c", Ok(("a", "/", "c"))),
            ("OPTIONS", "http://a", Ok(("a", "*", ""))),
            ("OPTIONS", "http://a/", Ok(("a", "/", ""))),
            ("OPTIONS", "*", Ok(("-", "*", ""))),
            ("GET", "*", Err(400)),
            ("GET", "", Err(400)),
            ("GET", "http://", Err(400)),
            ("GET", "http://:80/", Err(400)),
            ("GET", "http://a@b/", Err(400)),
            ("GET", "http://a\\@b/", Err(400)),
            ("GET", "http:/a", Err(400)),
            ("GET", "a:80", Err(400)),
            ("CONNECT", "a:80", Err(405)),
            ("CONNECT", "http://a/", Err(400)),
        ] {
            assert_eq!(parts(method, text), wanted, "{method} {text}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in ["", "a", "a.b:80", "a:", "my_name", "[::1]", "[::1]:80", "127.0.0.1"] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "a:b", "a b", "a/b", "u@a", "::1", "[::1", "[::1]a", "[a]", "a:80@b", "\\", "a:1:2",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }
}
