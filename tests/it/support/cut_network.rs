//! A network of two ends that can be cut: a pair of virtual devices, one here and one in a namespace of its own. Its
//! addresses are of 198.18.0.0/16, which is reserved for such tests (RFC 2544); no packet leaves this machine.

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The network; gone when it is dropped.
pub struct CutNetwork {
    namespace: String,
    device: String,
    /// Our own end.
    pub here: Ipv4Addr,
    /// The other one, with the length of its prefix.
    there: String,
    kind: Cut,
}

/// How it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The other device goes down, so that our kernel sees a link without a carrier.
    Link,
    /// The other end does not take what comes any more, and nothing shows on our side.
    Silent,
}

/// The hardware address of the other device, which is known on our side whatever happens there.
const HARDWARE: &str = "02:00:00:00:00:02";

/// Runs ip(8); whether it did what it should.
fn ip(arguments: &[&str]) -> bool {
    let status = Command::new("ip").args(arguments).stdin(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl CutNetwork {
    /// A network that works; `None`, said, where this user may not have one.
    pub fn new(kind: Cut) -> Option<CutNetwork> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() || Command::new("ip").arg("-V").output().is_err() {
            eprintln!("SKIPPED: only root, and only with ip(8) of iproute2, can make a network to cut");
            return None;
        }
        let (process, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        // Four addresses each, of a range that two processes hardly share.
        let base = (process.wrapping_mul(8).wrapping_add(made) % (1 << 14)) * 4;
        let address = |last: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + base + last);
        let name = format!("tc{process}n{made}");
        let network = CutNetwork {
            namespace: name.clone(),
            device: name,
            here: address(1),
            there: format!("{}/30", address(2)),
            kind,
        };
        let (here, there) = (format!("{}/30", network.here), network.there.as_str());
        let neighbor = address(2).to_string();
        let (namespace, device) = (network.namespace.as_str(), network.device.as_str());
        let steps: [&[&str]; 9] = [
            &["netns", "add", namespace],
            &[
                "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", namespace,
            ],
            &["addr", "add", &here, "dev", device],
            &["link", "set", device, "up"],
            &["-n", namespace, "link", "set", "lo", "up"],
            &["-n", namespace, "link", "set", "eth0", "address", HARDWARE],
            &["-n", namespace, "addr", "add", there, "dev", "eth0"],
            &["-n", namespace, "link", "set", "eth0", "up"],
            &[
                "neigh",
                "replace",
                &neighbor,
                "lladdr",
                HARDWARE,
                "nud",
                "permanent",
                "dev",
                device,
            ],
        ];
        if steps.iter().all(|step| ip(step)) {
            return Some(network);
        }
        eprintln!("SKIPPED: this host lets root make no namespace or no pair of devices");
        None
    }

    /// Runs `body` at the other end: whatever it connects or starts stays there.
    pub fn at_the_other_end<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.namespace)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // Of this thread only.
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                body()
            });
            inside.join().unwrap()
        })
    }

    /// Cuts it. Our own device stays up, so that nothing for the other end takes another way.
    pub fn cut(&self) {
        self.change("down", "del");
    }

    /// Mends it.
    pub fn mend(&self) {
        self.change("up", "add");
    }

    fn change(&self, link: &str, address: &str) {
        let change: &[&str] = match self.kind {
            Cut::Link => &["link", "set", "eth0", link],
            Cut::Silent => &["addr", address, &self.there, "dev", "eth0"],
        };
        assert!(ip(&[&["-n", &self.namespace][..], change].concat()));
    }
}

impl Drop for CutNetwork {
    fn drop(&mut self) {
        // The devices go with the namespace, unless somebody is still in it.
        let _ = ip(&["link", "del", &self.device]);
        let _ = ip(&["netns", "del", &self.namespace]);
    }
}
