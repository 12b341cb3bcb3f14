//! The other ends of the clients' sockets, in a process of their own: beside ours they would be over the limit of
//! descriptors, and what they do would be in the times.
//!
//! That process is this program again, with [`ADDRESS`] in its environment. It connects as often as it is told, then
//! obeys orders from its standard input, eight bytes each: so many bytes are read from every socket, compared, and
//! answered once on its standard output.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The variable that says where to connect to; its value is the address, a space, and the number of connections.
pub(crate) const ADDRESS: &str = "THREADCAST_MICRO_PEERS";
/// A socket that has nothing for so long lacks something.
const PATIENCE: Duration = Duration::from_secs(20);

/// The process with the other ends; it goes when this does.
pub(crate) struct Peers {
    process: Child,
}

impl Peers {
    /// Starts it; gives our ends of `count` connections to it.
    pub(crate) fn connect(count: usize, listener: &TcpListener) -> (Peers, Vec<(TcpStream, SocketAddr)>) {
        let address = listener.local_addr().expect("it is bound");
        let process = Command::new(std::env::current_exe().expect("we run from a file"))
            .env(ADDRESS, format!("{address} {count}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("another process can be started");
        let peers = Peers { process };
        let accept = |_| listener.accept().expect("the other process connects");
        (peers, (0..count).map(accept).collect())
    }

    /// The next `bytes` bytes that every client gets; fails when two get something else, or one less.
    pub(crate) fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut answer = vec![0; bytes];
        let (orders, answers) = (&mut self.process.stdin, &mut self.process.stdout);
        let order = orders.as_mut().expect("it is piped").write_all(&bytes.to_le_bytes());
        let answered = order.and_then(|()| answers.as_mut().expect("it is piped").read_exact(&mut answer));
        answered.expect("all clients get the same; standard error says which one does not");
        answer
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // It ends with its orders.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The body of that process.
pub(crate) fn read_on_demand(order: &str) {
    let (address, count) = order.split_once(' ').expect("an address and a number");
    let count: usize = count.parse().expect("a number");
    let connect = |_| -> io::Result<TcpStream> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    let sockets: io::Result<Vec<TcpStream>> = (0..count).map(connect).collect();
    let mut sockets = sockets.expect("the bench listens, and there are descriptors enough");
    let mut order = [0; 8];
    // Its end is that of the bench.
    while io::stdin().read_exact(&mut order).is_ok() {
        let mut first = vec![0; usize::from_le_bytes(order)];
        let mut other = first.clone();
        for (index, socket) in sockets.iter_mut().enumerate() {
            let read = if index == 0 { &mut first } else { &mut other };
            if let Err(error) = socket.read_exact(read) {
                panic!("client {index} lacks something: {error}");
            }
            assert!(index == 0 || first == other, "client {index} gets something else");
        }
        let mut out = io::stdout().lock();
        out.write_all(&first)
            .and_then(|()| out.flush())
            .expect("the bench reads");
    }
}
