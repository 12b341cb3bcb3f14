//! Whoever speaks `threadcast.v1` is told which component hangs, and when it goes on, whichever component that is; a
//! plain client gets nothing that it would not understand.

use crate::support::client::Options;
use crate::support::{TestClient, TestServer, eventually, in_both_shapes_at_once, numbered};
use serde_json::Value;

/// Server flags under which a hang is judged soon.
const FLAGS: [&str; 3] = ["--allow-drill", "--hang-timeout", "1s"];
/// Longer than any of these tests; each ends its drills itself.
const LONG_MS: u64 = 60_000;

/// How a client asks for the numbered protocol, at `target`.
pub fn v1_options(target: &str) -> Options {
    Options {
        target: target.to_owned(),
        headers: vec!["Sec-WebSocket-Protocol: threadcast.v1".to_owned()],
        ..Options::default()
    }
}

/// A client that has been greeted and has read nothing but its `hello`.
#[track_caller]
fn greeted(server: &TestServer) -> TestClient {
    let mut client = TestClient::with(server.address, &v1_options("/ws/events"));
    assert_eq!(client.json()["type"], "hello");
    client
}

/// A client that has read its `initial`, too.
#[track_caller]
fn joined(server: &TestServer) -> TestClient {
    let mut client = greeted(server);
    assert_eq!(client.json()["type"], "initial");
    client
}

#[track_caller]
fn freeze(server: &TestServer, component: &str, millis: u64) {
    let target = format!("/drill?component={component}&ms={millis}");
    let answer = server.act(&target);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The next notice about `component`, which must be a `kind`. On a host that gives others no processor for the hang
/// timeout, there may be notices about them, too.
#[track_caller]
fn next_notice(client: &mut TestClient, component: &str, kind: &str) -> Value {
    loop {
        let notice = client.json();
        assert!(notice["component"].is_string(), "no notice: {notice}");
        if notice["component"] == component {
            assert_eq!(notice["type"], kind, "{notice}");
            return notice;
        }
    }
}

/// The next message is a `stall` of `component`; gives its seconds.
#[track_caller]
fn expect_stall(client: &mut TestClient, component: &str) -> f64 {
    let stall = next_notice(client, component, "stall");
    assert_eq!(
        (&stall["verdict"], &stall["operation"]),
        (&"hung".into(), &"a drill".into())
    );
    seconds(&stall)
}

/// The next message says that `component`, which had stood still for `least` seconds, goes on.
#[track_caller]
fn expect_recovered(client: &mut TestClient, component: &str, least: f64) {
    let recovered = next_notice(client, component, "recovered");
    assert!(seconds(&recovered) >= least, "{recovered}");
}

fn seconds(notice: &Value) -> f64 {
    let seconds = notice["seconds"].as_f64().unwrap();
    assert!(seconds >= 1.0, "the hang timeout: {notice}");
    seconds
}

/// `component` hangs and goes on again; both clients are there for it.
#[track_caller]
fn hang_and_recover(server: &TestServer, client: &mut TestClient, component: &str) {
    eprintln!("{component}");
    freeze(server, component, LONG_MS);
    let told = expect_stall(client, component);
    freeze(server, component, 0);
    expect_recovered(client, component, told);
}

#[test]
fn numbered_clients_are_told_of_every_component_that_hangs_and_plain_ones_of_none() {
    in_both_shapes_at_once(|delivery| {
        let server = TestServer::start(&[&["--delivery", delivery][..], &FLAGS].concat());
        let (mut numbered_client, mut plain) = (joined(&server), server.client());
        for component in ["fanout", "inbox", "files"] {
            hang_and_recover(&server, &mut numbered_client, component);
        }
        server.send(numbered(0, 100));
        assert_eq!(numbered_client.json()["seq"], 1);
        plain.expect_numbers(0..1);
        eventually("the server is well again", || {
            (server.health()["status"] == "ok").then_some(())
        });
    });
}

#[test]
fn the_components_beside_the_path_are_told_as_well() {
    let server = TestServer::start(&FLAGS);
    let (mut numbered_client, mut plain) = (joined(&server), server.client());
    for component in ["ingest", "heartbeat", "log", "main"] {
        hang_and_recover(&server, &mut numbered_client, component);
    }
    // Nobody can ask for the end of this one, because nobody is let in.
    freeze(&server, "accept", 10_000);
    let told = expect_stall(&mut numbered_client, "accept");
    expect_recovered(&mut numbered_client, "accept", told);
    server.send(numbered(0, 100));
    plain.expect_numbers(0..1);
}

#[test]
fn two_that_hang_at_once_are_both_told_and_each_end_is_its_own() {
    let server = TestServer::start(&FLAGS);
    let mut client = joined(&server);
    freeze(&server, "files", LONG_MS);
    let files = expect_stall(&mut client, "files");
    freeze(&server, "fanout", LONG_MS);
    let fanout = expect_stall(&mut client, "fanout");
    freeze(&server, "files", 0);
    expect_recovered(&mut client, "files", files);
    freeze(&server, "fanout", 0);
    expect_recovered(&mut client, "fanout", fanout);
}

#[test]
fn a_client_that_comes_during_a_hang_is_told_of_it_right_after_its_hello() {
    let server = TestServer::start(&FLAGS);
    let mut witness = joined(&server);
    for component in ["inbox", "files"] {
        freeze(&server, component, LONG_MS);
        let told = expect_stall(&mut witness, component);
        let mut newcomer = greeted(&server);
        assert!(expect_stall(&mut newcomer, component) >= told);
        assert_eq!(newcomer.json()["type"], "initial");
        freeze(&server, component, 0);
        for client in [&mut witness, &mut newcomer] {
            expect_recovered(client, component, told);
        }
        // What is over is not told to who comes later.
        joined(&server);
    }
}
