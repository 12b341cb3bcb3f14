//! From the kernel to the fan-out: the datagram socket and its path, who receives and when, and the queue in between.

pub mod event_socket;

pub mod gauges;

pub mod queue;

pub mod receiver;

pub mod ingest;
