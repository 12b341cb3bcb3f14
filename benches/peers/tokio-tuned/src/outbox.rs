//! What a client is still to be sent: batches that it shares with all others, and answers of its own between them.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::net::TcpStream;

/// Batches in one vectored write.
const PARTS_MAX: usize = 64;

#[derive(Default)]
pub struct Outbox {
    parts: VecDeque<Bytes>,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether it has as much as one write takes.
    pub fn is_full(&self) -> bool {
        self.parts.len() >= PARTS_MAX
    }

    /// Appends whole frames.
    pub fn push(&mut self, frames: Bytes) {
        self.parts.push_back(frames);
    }

    /// Writes until all is written or the kernel takes no more.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn write(&mut self, stream: &TcpStream) -> io::Result<()> {
        while let Some(first) = self.parts.front() {
            let written = match self.parts.len() {
                1 => stream.try_write(first),
                _ => self.write_vectored(stream),
            };
            match written {
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_vectored(&self, stream: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PARTS_MAX];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        stream.try_write_vectored(&slices[..count])
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.parts.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.parts.pop_front();
        }
    }
}
