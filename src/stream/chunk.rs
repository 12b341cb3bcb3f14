//! Frames encoded once, shared by every client.

use crate::stream::event::Seq;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Whole WebSocket frames in one immutable buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    bytes: Vec<u8>,
    /// Where each frame ends; increasing, the last is `bytes.len()`.
    ends: Vec<usize>,
    /// How many of the frames are events.
    events: usize,
    published_us: u64,
    last: Seq,
}

impl Chunk {
    /// One text frame that is not an event: a snapshot, or what the server says itself.
    pub fn message(text: &[u8]) -> Chunk {
        let mut builder = ChunkBuilder::new(1, text.len());
        builder.push_message(text);
        builder.finish(0, 0)
    }

    /// The bytes as they go to the socket.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.ends.len()
    }

    /// Number of frames that are events; the others are the server's own messages.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Returns whether it is a snapshot or a message of the server itself, and no event.
    pub fn is_message(&self) -> bool {
        self.events == 0
    }

    /// When its events were published, [`monotonic_us`](crate::process::clock::monotonic_us); 0 for a message.
    pub fn published_us(&self) -> u64 {
        self.published_us
    }

    /// The last number of the batch that it was made of; 0 for a message.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// Memory that it holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// The payload of frame `index`, which must be there.
    pub fn payload(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        let frame = &self.bytes[start..self.ends[index]];
        // RFC 6455 section 5.2: the length stands in the second byte, or in the two or eight that follow it.
        match frame[1] {
            127 => &frame[10..],
            126 => &frame[4..],
            _ => &frame[2..],
        }
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
    events: usize,
}

/// Longest header of a frame that a server sends (RFC 6455 section 5.2, without a mask).
const HEADER_BYTES_MAX: usize = 10;

impl ChunkBuilder {
    /// For about `frames` frames with `payload_bytes` bytes together.
    pub fn new(frames: usize, payload_bytes: usize) -> ChunkBuilder {
        ChunkBuilder {
            bytes: Vec::with_capacity(payload_bytes + frames * HEADER_BYTES_MAX),
            ends: Vec::with_capacity(frames),
            events: 0,
        }
    }

    /// Adds one event as a text frame. `payload` must be UTF-8.
    pub fn push(&mut self, payload: &[u8]) {
        self.push_message(payload);
        self.events += 1;
    }

    /// Adds a message of the server itself as a text frame. `payload` must be UTF-8.
    pub fn push_message(&mut self, payload: &[u8]) {
        put_frame(&mut self.bytes, OpCode::Data(Data::Text), payload);
        self.ends.push(self.bytes.len());
    }

    /// The finished chunk. It holds no more memory than it says, also when most of what room was made for was refused:
    /// backlogs and the history are bounded by what chunks say. `published_us` is when its events were published,
    /// `last` the last number that it covers.
    pub fn finish(mut self, published_us: u64, last: Seq) -> Chunk {
        if self.bytes.capacity() / 2 > self.bytes.len() {
            self.bytes.shrink_to_fit();
            self.ends.shrink_to_fit();
        }
        Chunk {
            bytes: self.bytes,
            ends: self.ends,
            events: self.events,
            published_us,
            last,
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
        let mut builder = ChunkBuilder::new(2, 100_100);
        builder.push(&[b'x'; 100]);
        assert!(builder.finish(0, 2).bytes.capacity() < 1000);
    }

    #[test]
    fn boundaries_are_found_from_anywhere() {
        let mut builder = ChunkBuilder::new(2, 5);
        builder.push(b"ab");
        builder.push(b"cde");
        let chunk = builder.finish(0, 2);
        assert_eq!((chunk.events(), chunk.frames()), (2, 2));
        assert_eq!((chunk.payload(0), chunk.payload(1)), (&b"ab"[..], &b"cde"[..]));
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
