//! `threadcast forget NAME`: removes a machine from a running server.

use crate::commands::{complain, print};
use crate::process::exit::ExitStatus;
use crate::web::query;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long to wait for the server's connection, and for each part of its answer; it answers within 4 s.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The answers of this request have some 100 bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// The command.
pub fn run(machine: &str, host: &str, port: u16) -> ExitStatus {
    match ask(machine, host, port) {
        Ok((200, _)) => print(&format!("machine {machine:?} is forgotten\n")),
        Ok((status, body)) => {
            let detail = serde_json::from_str::<serde_json::Value>(&body).ok();
            let detail = detail.and_then(|body| Some(body.get("detail")?.as_str()?.to_owned()));
            complain(&format!(
                "threadcast: not forgotten: {}\n",
                detail.unwrap_or(format!("status {status}: {body}"))
            ));
            ExitStatus::Failed
        }
        Err(error) => {
            complain(&format!(
                "threadcast: cannot ask the server at {host}:{port}: {error}\nhint: is it running there? --host and --port say where\n"
            ));
            ExitStatus::Failed
        }
    }
}

/// The server's status and body.
fn ask(machine: &str, host: &str, port: u16) -> io::Result<(u16, String)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(socket) => return exchange(socket, machine, host, port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut socket: TcpStream, machine: &str, host: &str, port: u16) -> io::Result<(u16, String)> {
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let machine = query::encode(machine);
    write!(
        socket,
        "POST /forget?machine={machine} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    socket.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    match (status, answer.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what answers there is no threadcast",
        )),
    }
}
