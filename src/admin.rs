//! Acting on a running server: forget a machine, ask for a report, drill.
//!
//! All of it goes through a Unix stream socket, because the kernel vouches for its file and for its peers. A TCP peer
//! proves nothing: behind a proxy on this host every request comes from loopback, and /proc/net/tcp names no user once
//! a client has closed.

pub mod credentials;
pub mod folder;
pub mod listener;
pub mod place;
pub mod refusals;
pub mod reserve;
