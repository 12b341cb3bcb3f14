//! Frames encoded once, shared by every client.

use crate::pipeline::event::Seq;
use std::ops::Range;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Whole WebSocket frames in one immutable buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    bytes: Vec<u8>,
    /// Where each frame ends; increasing, the last is `bytes.len()`.
    ends: Vec<usize>,
    seqs: Range<Seq>,
}

impl Chunk {
    /// One text frame that is not an event: a snapshot, or what the server says itself.
    pub fn message(text: &[u8]) -> Chunk {
        let mut builder = ChunkBuilder::new(0, 1, text.len());
        builder.push(text);
        let mut chunk = builder.finish();
        chunk.seqs = 0..0;
        chunk
    }

    /// The bytes as they go to the socket.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.ends.len()
    }

    /// Whether it is a snapshot or a message of the server itself.
    pub fn is_message(&self) -> bool {
        self.seqs.is_empty()
    }

    /// The numbers of the events in it, empty for what is not an event.
    pub fn seqs(&self) -> Range<Seq> {
        self.seqs.clone()
    }

    /// The end of the frame that byte `at` lies in; `at` itself when it is the boundary between two.
    pub fn boundary_from(&self, at: usize) -> usize {
        if at == 0 {
            return 0;
        }
        let frame = self.ends.partition_point(|end| *end < at);
        self.ends.get(frame).copied().unwrap_or(self.bytes.len())
    }
}

/// Makes a [`Chunk`] of events that follow each other.
#[derive(Debug)]
pub struct ChunkBuilder {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    first: Seq,
}

/// Longest header of a frame that a server sends (RFC 6455 section 5.2, without a mask).
const HEADER_BYTES_MAX: usize = 10;

impl ChunkBuilder {
    /// For `events` events with `payload_bytes` bytes together; the first one's number is `first`.
    pub fn new(first: Seq, events: usize, payload_bytes: usize) -> ChunkBuilder {
        ChunkBuilder {
            bytes: Vec::with_capacity(payload_bytes + events * HEADER_BYTES_MAX),
            ends: Vec::with_capacity(events),
            first,
        }
    }

    /// Adds one event as a text frame. `payload` must be UTF-8.
    pub fn push(&mut self, payload: &[u8]) {
        put_frame(&mut self.bytes, OpCode::Data(Data::Text), payload);
        self.ends.push(self.bytes.len());
    }

    /// The finished chunk. It holds no more memory than it says, also when most of what room was made for was refused:
    /// backlogs are bounded by what chunks say.
    pub fn finish(mut self) -> Chunk {
        if self.bytes.capacity() / 2 > self.bytes.len() {
            self.bytes.shrink_to_fit();
            self.ends.shrink_to_fit();
        }
        let seqs = self.first..self.first + self.ends.len() as Seq;
        Chunk {
            bytes: self.bytes,
            ends: self.ends,
            seqs,
        }
    }
}

fn put_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    header
        .format(payload.len() as u64, out)
        .expect("writing to a Vec cannot fail");
    out.extend_from_slice(payload);
}

/// A text frame of its own.
pub fn text_frame(payload: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + HEADER_BYTES_MAX);
    put_frame(&mut out, OpCode::Data(Data::Text), payload.as_bytes());
    out
}

/// A ping frame without payload (RFC 6455 section 5.5.2).
pub fn ping_frame() -> Vec<u8> {
    let mut out = Vec::with_capacity(2);
    put_frame(&mut out, OpCode::Control(Control::Ping), b"");
    out
}

/// A close frame; the reason is cut to the 123 bytes that fit (RFC 6455 section 5.5).
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    const REASON_BYTES_MAX: usize = 123;
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let payload = [&code.to_be_bytes()[..], &reason.as_bytes()[..end]].concat();
    let mut out = Vec::with_capacity(payload.len() + 2);
    put_frame(&mut out, OpCode::Control(Control::Close), &payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_carry_their_length_in_the_shortest_form() {
        for (len, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 255, 255]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let chunk = Chunk::message(&vec![b'x'; len]);
            assert_eq!(&chunk.bytes()[..header.len()], header);
            assert_eq!(chunk.bytes().len(), header.len() + len);
        }
    }

    #[test]
    fn room_made_for_refused_events_is_given_back() {
        let mut builder = ChunkBuilder::new(1, 2, 100_100);
        builder.push(&[b'x'; 100]);
        assert!(builder.finish().bytes.capacity() < 1000);
    }

    #[test]
    fn boundaries_are_found_from_anywhere() {
        let mut builder = ChunkBuilder::new(7, 2, 5);
        builder.push(b"ab");
        builder.push(b"cde");
        let chunk = builder.finish();
        assert_eq!((chunk.seqs(), chunk.frames()), (7..9, 2));
        let boundaries: Vec<usize> = (0..=9).map(|at| chunk.boundary_from(at)).collect();
        assert_eq!(boundaries, [0, 4, 4, 4, 4, 9, 9, 9, 9, 9]);
    }

    #[test]
    fn a_long_close_reason_is_cut_between_characters() {
        let frame = close_frame(1013, &"ä".repeat(100));
        assert_eq!(&frame[..4], [0x88, 2 + 122, 0x03, 0xf5]);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
