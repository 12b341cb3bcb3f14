//! What the server says of itself, to people and monitors: from gauges and beats alone, so that it can speak while
//! every other thread stands still.

pub mod admin_gauges;

pub mod alert_gauges;

pub mod alerts;

pub mod health;

pub mod status;

pub mod heartbeat;

pub mod pulse;

pub mod reason;
