//! The task of one client: its handshake, then batches out and wishes in.

use crate::frames::{self, Answer, REQUEST_BYTES_MAX};
use crate::hub::{Batches, Hub, Lagged};
use crate::outbox::Outbox;
use crate::reader::{Reader, Wish};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Bytes that one read takes.
const READ_BYTES: usize = 4096;

/// First byte of a pong and of a close frame.
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

/// Close code of an end that the client has asked for.
const NORMAL: u16 = 1000;

/// Why a client's task ends.
enum End {
    /// It has left or broken off.
    Gone,
    /// It has asked for the end, or has broken the protocol.
    Asked,
    /// It does not read as fast as events come.
    Slow,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Gone
    }
}

impl From<Lagged> for End {
    fn from(_: Lagged) -> End {
        End::Slow
    }
}

/// Serves a client until it ends.
pub async fn serve(stream: TcpStream, hub: Arc<Hub>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some((head, leftover)) = shake_hands(&stream).await else {
        return;
    };
    let (batches, rows) = hub.join();
    let mut client = Client {
        stream,
        hub,
        reader: Reader::new(),
        out: Outbox::default(),
    };
    client.out.push(head.into());
    client.out.push(text_frame(&frames::initial(&rows)));
    drop(rows);
    let ended = match client.take(&leftover) {
        Ok(()) => client.run(batches).await,
        Err(end) => Err(end),
    };
    // A client that is cut off is in the middle of a frame, where no close frame can go.
    if matches!(ended, Err(End::Asked)) && client.out.is_empty() {
        let [high, low] = NORMAL.to_be_bytes();
        let _ = client.stream.try_write(&[CLOSE, 2, high, low]);
    }
}

/// The answer to the client's request and what it has sent behind it; `None` if it has been refused or has gone.
async fn shake_hands(stream: &TcpStream) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut received = Vec::with_capacity(1024);
    while received.len() < 2 * REQUEST_BYTES_MAX {
        stream.readable().await.ok()?;
        match stream.try_read_buf(&mut received) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        match frames::answer(&received) {
            Answer::Wait => {}
            Answer::Accept(head, length) => return Some((head, received.split_off(length))),
            Answer::Refuse(answer) => {
                let _ = stream.try_write(answer);
                return None;
            }
        }
    }
    None
}

struct Client {
    stream: TcpStream,
    hub: Arc<Hub>,
    reader: Reader,
    out: Outbox,
}

impl Client {
    async fn run(&mut self, mut batches: Batches) -> Result<(), End> {
        loop {
            self.out.write(&self.stream)?;
            if self.out.is_empty() {
                tokio::select! {
                    batch = batches.next() => self.out.push(batch?),
                    ready = self.stream.readable() => { ready?; self.read()? }
                }
            } else {
                tokio::select! {
                    ready = self.stream.writable() => ready?,
                    ready = self.stream.readable() => { ready?; self.read()? }
                }
            }
            // All that waits goes into one write.
            while !self.out.is_full() {
                match batches.try_next()? {
                    Some(batch) => self.out.push(batch),
                    None => break,
                }
            }
        }
    }

    /// Takes what has come; does not wait.
    fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0; READ_BYTES];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => Err(End::Gone),
            Ok(length) => self.take(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), End> {
        let (mut asked, out, hub) = (false, &mut self.out, &self.hub);
        self.reader.take(bytes, |wish| match wish {
            Wish::Close => asked = true,
            // Whoever asks without reading the answers gets no more of them.
            _ if out.is_full() => {}
            Wish::Pong(payload, length) => {
                let mut pong = Vec::with_capacity(2 + length);
                frames::append_header(&mut pong, PONG, length);
                pong.extend_from_slice(&payload[..length]);
                out.push(pong.into());
            }
            Wish::TextPong => out.push(text_frame(br#"{"type":"pong"}"#)),
            Wish::Refresh => {
                let rows = hub.table().rows();
                out.push(text_frame(&frames::initial(&rows)));
            }
        });
        if asked { Err(End::Asked) } else { Ok(()) }
    }
}

fn text_frame(text: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 10);
    frames::append_text(&mut out, text);
    out.into()
}
