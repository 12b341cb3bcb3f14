//! WebSocket as far as the peers without a WebSocket library need it (RFC 6455): a client's request, frames out.
//!
//! Each of them includes this file by its path.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};

/// A request's longest head, in bytes; whoever sends more is no client of ours.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// First byte of a text frame that is a whole message.
const TEXT: u8 = 0x81;

/// What to answer to the bytes that a new connection has sent.
pub enum Answer {
    /// The head is not complete yet.
    Wait,
    /// The connection is a WebSocket from here on: what to send, and how many bytes the request took.
    Accept(Vec<u8>, usize),
    /// What to send before the end.
    Refuse(&'static [u8]),
}

/// Judges the head of a request.
pub fn answer(received: &[u8]) -> Answer {
    const BAD: Answer = Answer::Refuse(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    const FORBIDDEN: Answer =
        Answer::Refuse(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let (length, request) = match Request::try_parse(received) {
        Ok(Some(parsed)) => parsed,
        Ok(None) if received.len() < REQUEST_BYTES_MAX => return Answer::Wait,
        _ => return BAD,
    };
    if request.uri().path() != "/ws/events" {
        return FORBIDDEN;
    }
    let mut head = Vec::with_capacity(256);
    match create_response(&request).and_then(|response| write_response(&mut head, &response)) {
        Ok(()) => Answer::Accept(head, length),
        Err(_) => BAD,
    }
}

/// Appends `text` as one text frame.
pub fn append_text(out: &mut Vec<u8>, text: &[u8]) {
    append_header(out, TEXT, text.len());
    out.extend_from_slice(text);
}

/// Appends the header of an unmasked frame.
pub fn append_header(out: &mut Vec<u8>, first: u8, length: usize) {
    match length {
        0..126 => out.extend_from_slice(&[first, length as u8]),
        126..65536 => {
            out.extend_from_slice(&[first, 126]);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// An `initial` with these rows, each of them JSON.
pub fn initial(rows: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = Vec::with_capacity(rows.len() + 64);
    text.extend_from_slice(br#"{"type":"initial","machines":["#);
    text.extend_from_slice(rows);
    // Writing to a vector cannot fail.
    let _ = write!(text, r#"],"timestamp":{:.6}}}"#, now.as_secs_f64());
    text
}
