//! A command on a terminal: what it shows there.

use super::{DEADLINE, uninterrupted};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the binary with `arguments` in `folder` to its end, its standard output on a terminal of `columns` columns:
/// its status, and what it has shown.
pub fn run_on_terminal(folder: &Path, columns: u16, arguments: &[&str]) -> (i32, String) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize {
        ws_row: 40,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = open(name.as_c_str(), flags, Mode::empty()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_threadcast"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("NO_COLOR")
        // A terminal knows its width by itself.
        .env("COLUMNS", "99")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::from(theirs.as_fd().try_clone_to_owned().unwrap()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(theirs);
    let (mut shown, mut ours, mut scrap) = (Vec::new(), File::from(ours), [0; 4096]);
    let begun = std::time::Instant::now();
    loop {
        assert!(begun.elapsed() < DEADLINE, "{arguments:?} does not end");
        match uninterrupted(|| ours.read(&mut scrap)) {
            Ok(0) => break,
            Ok(count) => shown.extend_from_slice(&scrap[..count]),
            // The kernel's word for the end of a terminal that nobody has open any more.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => break,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => panic!("{error}"),
        }
    }
    let status = child.wait().unwrap();
    let shown = String::from_utf8(shown).unwrap();
    (status.code().unwrap_or(-1), shown.replace("\r\n", "\n"))
}

/// The lines without colors.
pub fn plain_lines(shown: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = shown;
    while let Some((before, behind)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = behind.split_once('m').map_or("", |(_, behind)| behind);
    }
    plain.push_str(rest);
    plain.lines().map(str::to_owned).collect()
}
