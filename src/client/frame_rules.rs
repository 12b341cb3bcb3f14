//! What RFC 6455 forbids in a client's frames and the WebSocket library lets pass: lengths, and codes of close frames.
//!
//! Runs on `inbox`, over the bytes as they come from the socket, before the library sees them. Blocks on nothing, and
//! keeps 32 bytes per client, whatever the client sends.

use std::fmt;

/// Opcodes from here on are those of control frames (RFC 6455 section 5.2).
const CONTROL: u8 = 8;
/// The opcode of a close frame (RFC 6455 section 5.2).
const CLOSE: u8 = 8;
/// Most bytes of a control frame (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// Two bytes, eight of an extended length, four of the mask.
const HEADER_BYTES_MAX: usize = 14;
/// Bytes of a close code.
const CODE_BYTES: u64 = 2;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The length is written in more bytes than it needs (RFC 6455 section 5.2).
    LongLength { len: u64 },
    /// The length is 2^63 or more (RFC 6455 section 5.2).
    HugeLength,
    /// A control frame over 125 bytes (RFC 6455 section 5.5).
    LongControl { len: u64 },
    /// A close frame with a code that no endpoint may send (RFC 6455 section 7.4).
    CloseCode(u16),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::LongLength { len } => {
                write!(f, "a frame whose length of {len} is not written in the fewest bytes")
            }
            Fault::HugeLength => f.write_str("a frame whose length has its highest bit set"),
            Fault::LongControl { len } => write!(f, "a control frame of {len} bytes, more than {CONTROL_BYTES_MAX}"),
            Fault::CloseCode(code) => write!(f, "a close frame with code {code}, which no endpoint may send"),
        }
    }
}

/// Returns whether a close frame may carry `code`: the assigned codes of IANA's registry "WebSocket Close Code Number"
/// that are not reserved for local use, and the ranges for libraries (3000) and applications (4000), RFC 6455 section
/// 7.4.2.
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Where in the stream of frames a client is.
#[derive(Debug, Default)]
pub struct FrameRules {
    /// The header of the frame that has begun, as far as it is here.
    header: [u8; HEADER_BYTES_MAX],
    /// How many bytes of it are here.
    header_len: usize,
    /// Bytes of the payload that are still to come.
    payload_left: u64,
    /// Of a close frame: how many bytes of its code are here.
    code_len: u64,
    /// The code of the close frame that has begun.
    close_code: u16,
}

impl FrameRules {
    /// Judges the next `bytes` of the stream.
    ///
    /// # Errors
    /// A frame breaks the rules, behind this many good bytes. What follows must not be judged.
    pub fn judge(&mut self, bytes: &[u8]) -> Result<(), (usize, Fault)> {
        let mut at = 0;
        while at < bytes.len() {
            if self.payload_left > 0 {
                at += self.pass_payload(&bytes[at..]).map_err(|fault| (at, fault))?;
                continue;
            }
            self.header[self.header_len] = bytes[at];
            self.header_len += 1;
            if self.is_header_whole() {
                self.begin_payload().map_err(|fault| (at, fault))?;
            }
            at += 1;
        }
        Ok(())
    }

    /// The code of the last close frame; `None` when it had none, or there was no close frame.
    pub fn close_code(&self) -> Option<u16> {
        (self.code_len == CODE_BYTES).then_some(self.close_code)
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0f
    }

    fn length_bytes(&self) -> usize {
        match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn mask_bytes(&self) -> usize {
        if self.header[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn is_header_whole(&self) -> bool {
        self.header_len >= 2 && self.header_len == 2 + self.length_bytes() + self.mask_bytes()
    }

    /// Judges the header, which is whole.
    fn begin_payload(&mut self) -> Result<(), Fault> {
        let extended = &self.header[2..2 + self.length_bytes()];
        let value = extended.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let (len, least) = match extended.len() {
            0 => (u64::from(self.header[1] & 0x7f), 0),
            2 => (value, 126),
            _ => (value, 1 << 16),
        };
        if len < least {
            return Err(Fault::LongLength { len });
        }
        if len >> 63 != 0 {
            return Err(Fault::HugeLength);
        }
        if self.opcode() >= CONTROL && len > CONTROL_BYTES_MAX {
            return Err(Fault::LongControl { len });
        }
        self.payload_left = len;
        if self.opcode() == CLOSE {
            (self.code_len, self.close_code) = (0, 0);
        }
        self.header_len = if len == 0 { 0 } else { self.header_len };
        Ok(())
    }

    /// Takes what of `bytes` belongs to the payload, and returns how many bytes that is.
    fn pass_payload(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let len = self.payload_left.min(bytes.len() as u64) as usize;
        if self.opcode() == CLOSE {
            self.read_code(&bytes[..len])?;
        }
        self.payload_left -= len as u64;
        if self.payload_left == 0 {
            self.header_len = 0;
        }
        Ok(len)
    }

    /// Reads the code at the beginning of a close frame's payload, which is masked (RFC 6455 section 5.3).
    fn read_code(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.mask_bytes() == 0 {
            // The library refuses the frame for that.
            return Ok(());
        }
        let mask = self.header_len - self.mask_bytes();
        let left = (CODE_BYTES - self.code_len) as usize;
        for byte in bytes.iter().take(left) {
            let byte = byte ^ self.header[mask + self.code_len as usize];
            self.close_code = self.close_code << 8 | u16::from(byte);
            self.code_len += 1;
        }
        if left > 0 && self.code_len == CODE_BYTES && !may_be_sent(self.close_code) {
            return Err(Fault::CloseCode(self.close_code));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame whose length is written in `length_bytes` more bytes.
    fn frame(opcode: u8, length_bytes: usize, len: u64, payload: &[u8]) -> Vec<u8> {
        const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
        let second = match length_bytes {
            0 => len as u8,
            2 => 126,
            _ => 127,
        };
        let mut frame = vec![0x80 | opcode, 0x80 | second];
        frame.extend_from_slice(&len.to_be_bytes()[8 - length_bytes..]);
        frame.extend_from_slice(&MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// The outcome of `bytes`, which is the same however they are cut.
    fn judged(bytes: &[u8]) -> Result<(), Fault> {
        let whole = FrameRules::default().judge(bytes).map_err(|(_, fault)| fault);
        for piece in 1..bytes.len().min(40) {
            let mut rules = FrameRules::default();
            let in_pieces = bytes.chunks(piece).try_for_each(|piece| rules.judge(piece));
            assert_eq!(in_pieces.map_err(|(_, fault)| fault), whole, "in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn a_length_is_written_in_the_fewest_bytes() {
        for (length_bytes, len) in [(0, 0), (0, 125), (2, 126), (2, 65_535), (8, 65_536)] {
            let payload = vec![7; len as usize];
            let two = [frame(1, length_bytes, len, &payload), frame(9, 0, 1, b"x")].concat();
            assert_eq!(judged(&two), Ok(()), "{len}");
        }
        for (length_bytes, len) in [(2, 0), (2, 125), (8, 0), (8, 125), (8, 126), (8, 65_535)] {
            let fault = Err(Fault::LongLength { len });
            assert_eq!(judged(&frame(1, length_bytes, len, b"")), fault, "{len}");
        }
        assert_eq!(judged(&frame(1, 8, 1 << 63, b"")), Err(Fault::HugeLength));
    }

    #[test]
    fn a_control_frame_is_short() {
        for opcode in [8, 9, 10] {
            assert_eq!(
                judged(&frame(opcode, 2, 126, b"")),
                Err(Fault::LongControl { len: 126 })
            );
        }
        assert_eq!(judged(&frame(9, 0, 125, &[1; 125])), Ok(()));
    }

    #[test]
    fn a_close_frame_has_a_code_that_may_be_sent() {
        for code in [1000, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            let close = frame(8, 0, 2, &u16::to_be_bytes(code));
            assert_eq!(judged(&close), Ok(()), "{code}");
            let mut rules = FrameRules::default();
            assert_eq!(rules.judge(&close), Ok(()));
            assert_eq!(rules.close_code(), Some(code));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            let close = frame(8, 0, 4, &[&u16::to_be_bytes(code)[..], b"no"].concat());
            assert_eq!(judged(&close), Err(Fault::CloseCode(code)), "{code}");
        }
        let mut rules = FrameRules::default();
        assert_eq!(rules.judge(&frame(8, 0, 0, b"")), Ok(()));
        assert_eq!(rules.close_code(), None);
        // Of one byte is the library's to refuse.
        assert_eq!(judged(&frame(8, 0, 1, b"x")), Ok(()));
    }

    #[test]
    fn what_comes_before_a_fault_is_good() {
        let good = frame(1, 0, 4, b"ping");
        let bytes = [good.clone(), frame(9, 2, 5, b"hello")].concat();
        let (at, fault) = FrameRules::default().judge(&bytes).unwrap_err();
        assert_eq!(fault, Fault::LongLength { len: 5 });
        assert!(at >= good.len() && at < bytes.len() - 5, "{at}");
    }
}
