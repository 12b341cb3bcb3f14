//! Which file's code lies at an address: the program, its libraries and the vDSO, from /proc/self/maps
//! (proc_pid_maps(5)).

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, read};

/// One file of code in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// Its path, or `[vdso]`.
    pub(super) path: String,
    /// Where its first byte lies.
    pub(super) start: u64,
    /// Where its last mapping ends.
    pub(super) end: u64,
}

impl Module {
    /// The name without folders.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Returns whether `address` lies in it.
    pub(super) fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// All modules of this process, ascending, the program itself wherever it lies. Empty when /proc cannot be read.
pub(super) fn read_modules() -> Vec<Module> {
    let Ok(file) = openat(CWD, c"/proc/self/maps", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return Vec::new();
    };
    // Two lines per thread; the kernel gives at most a page at a time.
    let mut content = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match read(&file, &mut piece) {
            Ok(0) => break,
            Ok(count) => content.extend_from_slice(&piece[..count]),
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    parse(&String::from_utf8_lossy(&content))
}

fn parse(maps: &str) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for line in maps.lines() {
        let Some(mapping) = Mapping::parse(line) else { continue };
        match modules.last_mut() {
            Some(module) if module.path == mapping.path && mapping.offset != 0 => module.end = mapping.end,
            _ if mapping.offset == 0 => modules.push(Module {
                path: mapping.path.to_owned(),
                start: mapping.start,
                end: mapping.end,
            }),
            _ => {}
        }
    }
    modules
}

/// A line of the table that belongs to a file or to the vDSO.
struct Mapping<'a> {
    start: u64,
    end: u64,
    offset: u64,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    /// Reads `start-end permissions offset device inode path`, the path to the end of the line.
    fn parse(line: &'a str) -> Option<Mapping<'a>> {
        let mut rest = line;
        let mut next = || {
            let (field, tail) = rest.trim_start().split_once(' ')?;
            rest = tail;
            Some(field)
        };
        let (start, end) = next()?.split_once('-')?;
        let _permissions = next()?;
        let offset = next()?;
        let (_device, _inode) = (next()?, next()?);
        let path = rest.trim();
        (path.starts_with('/') || path == "[vdso]").then_some(Mapping {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            offset: u64::from_str_radix(offset, 16).ok()?,
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0010000 r--p 00000000 fd:00 1 /opt/a server/threadcast
55d0c0010000-55d0c0090000 r-xp 00010000 fd:00 1 /opt/a server/threadcast
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000026000 r--p 00000000 fd:00 2                          /usr/lib/libc.so.6 (deleted)
7f0000026000-7f0000100000 r-xp 00026000 fd:00 2                          /usr/lib/libc.so.6 (deleted)
7f0000100000-7f0000108000 rw-p 00000000 00:00 0
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]
";

    #[test]
    fn mappings_of_one_file_are_one_module() {
        let modules = parse(MAPS);
        let names: Vec<&str> = modules.iter().map(Module::name).collect();
        assert_eq!(names, ["threadcast", "libc.so.6 (deleted)", "[vdso]"]);
        assert_eq!(modules[0].path, "/opt/a server/threadcast");
        assert_eq!((modules[0].start, modules[0].end), (0x55d0_c000_0000, 0x55d0_c009_0000));
        assert!(modules[1].contains(0x7f00_0002_6000) && modules[1].contains(0x7f00_000f_ffff));
        assert!(!modules.iter().any(|module| module.contains(0x7f00_0010_0000)));
    }

    #[test]
    fn this_function_lies_in_this_program() {
        let modules = read_modules();
        let own = read_modules as *const () as u64;
        let module = modules.iter().find(|module| module.contains(own)).unwrap();
        let program = std::env::current_exe().unwrap();
        assert_eq!(module.path, program.to_str().unwrap());
    }
}
