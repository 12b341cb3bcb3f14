//! Acting on a running server: forget a machine, have a report made, drill.
//!
//! All of it goes through a Unix stream socket, whose file and whose peers the kernel vouches for. A TCP peer proves nothing:
//! behind a proxy on this host everybody comes from loopback, and /proc/net/tcp names no user once a client has closed.

pub mod credentials;
pub mod listener;
pub mod place;
