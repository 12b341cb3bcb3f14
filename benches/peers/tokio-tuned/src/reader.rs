//! What a client sends, as far as something is to be done about it.
//!
//! Only messages of at most 125 bytes can ask for anything, so only those are kept until they are whole; longer ones
//! are skipped as they come. A client's reader therefore never allocates.

/// Header, mask and payload of the longest frame that is kept.
const KEPT_BYTES_MAX: usize = 2 + 4 + 125;

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// A pong frame with this payload, of which the second counts as many bytes.
    Pong([u8; 125], usize),
    /// `{"type":"pong"}`.
    TextPong,
    /// A new `initial`.
    Refresh,
    /// The end: it has said so, or has broken the protocol.
    Close,
}

pub struct Reader {
    kept: [u8; KEPT_BYTES_MAX],
    filled: usize,
    /// Bytes of a long message that are still to come.
    skip: u64,
}

impl Reader {
    pub fn new() -> Reader {
        Reader {
            kept: [0; KEPT_BYTES_MAX],
            filled: 0,
            skip: 0,
        }
    }

    /// Takes bytes as they come; tells each wish in them.
    pub fn take(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Wish)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                self.skip -= skipped;
                bytes = &bytes[skipped as usize..];
                continue;
            }
            let missing = self.needed() - self.filled;
            let taken = missing.min(bytes.len());
            self.kept[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == self.needed() {
                self.finish(&mut tell);
            }
        }
    }

    /// Bytes of the frame that is coming that must be here before more can be said of it.
    fn needed(&self) -> usize {
        if self.filled < 2 {
            return 2;
        }
        match self.kept[1] & 0x7f {
            126 => 2 + 2 + 4,
            127 => 2 + 8 + 4,
            length => 2 + 4 + usize::from(length),
        }
    }

    /// A short frame, or the header of a long one, is whole.
    fn finish(&mut self, tell: &mut impl FnMut(Wish)) {
        let filled = std::mem::take(&mut self.filled);
        // Frames of clients are masked (RFC 6455 section 5.1).
        if self.kept[1] & 0x80 == 0 {
            return tell(Wish::Close);
        }
        match self.kept[1] & 0x7f {
            126 => self.skip = u64::from(u16::from_be_bytes([self.kept[2], self.kept[3]])),
            127 => {
                let mut length = [0; 8];
                length.copy_from_slice(&self.kept[2..10]);
                self.skip = u64::from_be_bytes(length);
            }
            _ => {
                let (head, payload) = self.kept[..filled].split_at_mut(6);
                for (index, byte) in payload.iter_mut().enumerate() {
                    *byte ^= head[2 + index % 4];
                }
                if let Some(wish) = wish(head[0], payload) {
                    tell(wish);
                }
            }
        }
    }
}

/// What a short frame asks for.
fn wish(first: u8, payload: &[u8]) -> Option<Wish> {
    match (first & 0x0f, payload) {
        (0x8, _) => Some(Wish::Close),
        (0x9, _) => {
            let mut echoed = [0; 125];
            echoed[..payload.len()].copy_from_slice(payload);
            Some(Wish::Pong(echoed, payload.len()))
        }
        (0x1, br#"ping"# | br#"{"type":"ping"}"#) => Some(Wish::TextPong),
        (0x1, br#"refresh"# | br#"{"type":"refresh"}"#) => Some(Wish::Refresh),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            0..126 => out.push(0x80 | payload.len() as u8),
            126..65536 => {
                out.push(0x80 | 126);
                out.extend((payload.len() as u16).to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend((payload.len() as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend(mask);
        out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        out
    }

    #[test]
    fn every_wish_is_found_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for (first, payload) in [
            (0x81, &b"ping"[..]),
            (0x81, &[b'x'; 126]),
            (0x89, b"12345"),
            (0x82, &[b'y'; 70_000]),
            (0x81, b"pong"),
            (0x81, br#"{"type":"refresh"}"#),
            (0x88, b""),
        ] {
            bytes.extend(frame(first, payload));
        }
        let mut echoed = [0; 125];
        echoed[..5].copy_from_slice(b"12345");
        let expected = [Wish::TextPong, Wish::Pong(echoed, 5), Wish::Refresh, Wish::Close];
        for size in [1, 2, 7, 131, 4096, bytes.len()] {
            let (mut reader, mut wishes) = (Reader::new(), Vec::new());
            bytes
                .chunks(size)
                .for_each(|chunk| reader.take(chunk, |wish| wishes.push(wish)));
            assert_eq!(wishes, expected, "in pieces of {size}");
        }
    }
}
