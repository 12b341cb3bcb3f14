//! The names by which other machines may know this host.
//!
//! Nobody is asked over the network: a name server's answer could take long, and could be somebody else's.

use std::net::IpAddr;
use std::path::Path;

/// Longest file that is read; a hosts file that blocks advertisements has some megabytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The names of this host, lower case: the kernel's, its first part, with `.local` (RFC 6762) and with the search
/// domains of resolv.conf(5), and what hosts(5) gives it besides. `host` is the address or name that the server listens
/// on, which counts if it is a name. Blocks on two small files of `/etc`; for the start only.
pub fn own_names(host: &str) -> Vec<String> {
    let nodename = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let read = |path: &str| read_small(Path::new(path)).unwrap_or_default();
    let mut names = names_of(&nodename, &read("/etc/hosts"), &read("/etc/resolv.conf"));
    if host.parse::<IpAddr>().is_err() {
        names.push(host.trim_end_matches('.').to_ascii_lowercase());
    }
    names
}

/// The text of a regular file that is not too large.
fn read_small(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return None;
    }
    std::fs::read(path)
        .ok()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn names_of(nodename: &str, hosts: &str, resolv_conf: &str) -> Vec<String> {
    let nodename = nodename.trim_end_matches('.').to_ascii_lowercase();
    let short = nodename.split('.').next().unwrap_or_default().to_owned();
    // A host without a name has no names.
    if short.is_empty() || nodename == "(none)" {
        return Vec::new();
    }
    let mut names = vec![nodename.clone(), short.clone(), format!("{short}.local")];
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            let domains = words.map(|domain| domain.trim_matches('.').to_ascii_lowercase());
            names.extend(
                domains
                    .filter(|domain| !domain.is_empty())
                    .map(|domain| format!("{short}.{domain}")),
            );
        }
    }
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let listed: Vec<String> = line.split_whitespace().skip(1).map(str::to_ascii_lowercase).collect();
        if listed.iter().any(|name| *name == nodename || *name == short) {
            names.extend(listed);
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_and_the_full_name_are_found_without_a_name_server() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1\tBox.Lan box www # box2\n10.0.0.2 other other.lan\n";
        let resolv_conf = "# box\nnameserver 10.0.0.1\nsearch fritz.box Home.\noptions edns0\n";
        let names = names_of("box", hosts, resolv_conf);
        assert_eq!(
            names,
            ["box", "box.fritz.box", "box.home", "box.lan", "box.local", "www"]
        );
        assert_eq!(names_of("Box.Lan.", "", ""), ["box", "box.lan", "box.local"]);
        assert!(names_of("(none)", hosts, resolv_conf).is_empty());
        assert!(names_of("", hosts, "search .").is_empty());
    }

    #[test]
    fn the_name_that_the_server_listens_on_is_one_and_an_address_is_none() {
        assert!(own_names("Box.Lan").contains(&"box.lan".to_owned()));
        assert!(!own_names("0.0.0.0").contains(&"0.0.0.0".to_owned()));
        assert!(own_names("::").iter().all(|name| !name.contains(':')));
    }
}
