//! One answer to a request, as bytes.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// An answer, without the headers that every answer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// What is wrong with the request, where that is why this is the answer.
    refusal: Option<String>,
}

impl Answer {
    /// A JSON answer.
    pub fn json(status: u16, body: Vec<u8>) -> Answer {
        Answer {
            status,
            content_type: "application/json",
            headers: Vec::new(),
            body,
            refusal: None,
        }
    }

    /// An answer for people.
    pub fn text(status: u16, body: Vec<u8>) -> Answer {
        Answer {
            content_type: "text/plain; charset=utf-8",
            ..Answer::json(status, body)
        }
    }

    /// Nothing but headers.
    pub fn no_content() -> Answer {
        Answer::text(204, Vec::new())
    }

    /// A refusal, in the form in which the original says what is wrong: `{"detail":"..."}`.
    pub fn detail(status: u16, text: &str) -> Answer {
        let detail = serde_json::Value::from(text);
        Answer {
            refusal: Some(text.to_owned()),
            ..Answer::json(status, format!("{{\"detail\":{detail}}}").into_bytes())
        }
    }

    /// Returns whether the request was refused; a page that tells of trouble is none.
    pub fn is_refusal(&self) -> bool {
        self.refusal.is_some()
    }

    /// Status and reason, for the log.
    pub fn summary(&self) -> String {
        let reason = self.refusal.as_deref().unwrap_or_else(|| reason(self.status));
        format!("{} {reason}", self.status)
    }

    /// With one more header. The value must not contain a line end.
    pub fn with(mut self, name: &'static str, value: String) -> Answer {
        debug_assert!(!value.contains(['\r', '\n']));
        self.headers.push((name, value));
        self
    }

    /// The bytes on the wire, with the time of now; without the body for HEAD.
    pub fn encode(&self, method: &str) -> Vec<u8> {
        self.encode_at(method, SystemTime::now())
    }

    fn encode_at(&self, method: &str, now: SystemTime) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\ndate: {}\r\n",
            self.status,
            reason(self.status),
            imf_fixdate(now)
        );
        // A 204 has no body, and no length of one (RFC 9110 section 8.6).
        if self.status != 204 {
            push(&mut head, "content-type", self.content_type);
            push(&mut head, "content-length", &self.body.len().to_string());
        }
        push(&mut head, "vary", "Origin");
        // RFC 9110 section 7.8: who sends Upgrade must name it in Connection.
        let upgrades = self.headers.iter().any(|(name, _)| *name == "upgrade");
        push(
            &mut head,
            "connection",
            if upgrades { "Upgrade, close" } else { "close" },
        );
        for (name, value) in &self.headers {
            push(&mut head, name, value);
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if method != "HEAD" && self.status != 204 {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn push(head: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(head, "{name}: {value}\r\n");
}

/// A time as `Date` has it (RFC 9110 section 5.6.7), to the second; the epoch where that form has no such year.
fn imf_fixdate(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let at = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    // Both names are English words whose first three letters are the ones of the RFC.
    let (day, month) = (at.weekday().to_string(), at.month().to_string());
    format!(
        "{:.3}, {:02} {:.3} {:04} {:02}:{:02}:{:02} GMT",
        day,
        at.day(),
        month,
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_head_gets_no_body() {
        let answer = Answer::detail(404, "Not Found");
        let get = String::from_utf8(answer.encode("GET")).unwrap();
        assert!(get.ends_with("\r\n\r\n{\"detail\":\"Not Found\"}"));
        let head = String::from_utf8(answer.encode("HEAD")).unwrap();
        assert!(head.contains("content-length: 22\r\n") && head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn an_answer_without_content_has_no_length() {
        let answer = Answer::no_content().with("allow", "GET".to_owned());
        let epoch = answer.encode_at("OPTIONS", UNIX_EPOCH);
        assert_eq!(
            String::from_utf8(epoch).unwrap(),
            "HTTP/1.1 204 No Content\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nvary: Origin\r\nconnection: \
             close\r\nallow: GET\r\n\r\n"
        );
    }

    #[test]
    fn a_date_is_written_as_the_rfc_does() {
        let at = |seconds| imf_fixdate(UNIX_EPOCH + Duration::from_secs(seconds));
        // The example of RFC 9110 section 5.6.7.
        assert_eq!(at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(1_709_164_800), "Thu, 29 Feb 2024 00:00:00 GMT");
        assert_eq!(imf_fixdate(UNIX_EPOCH - Duration::from_secs(1)), at(0));
    }
}
