//! The environment of a service's processes.

use crate::config::table::ENVIRONMENT_PREFIX;
use crate::process::systemd::PRIVATE_VARIABLES;
use crate::supervise::mark::{Mark, VARIABLE};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Has Python write each line at once, also into a file.
const UNBUFFERED: &str = "PYTHONUNBUFFERED";

/// Makes the environment of a service: `ours` without what is meant for this process alone, then `theirs`, then the
/// mark. With `is_unbuffered`, Python's output is not kept back, unless one of the two says something about that.
pub(super) fn environment(
    ours: impl Iterator<Item = (OsString, OsString)>,
    theirs: &[(OsString, OsString)],
    is_unbuffered: bool,
    mark: &Mark,
) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> = ours.filter(|(name, _)| !is_ours_alone(name)).collect();
    environment.extend(theirs.iter().cloned());
    if is_unbuffered {
        environment.entry(UNBUFFERED.into()).or_insert_with(|| "1".into());
    }
    environment.insert(VARIABLE.into(), mark.value().into());
    environment
}

/// Returns whether this process has the variable for itself: its settings, its own mark, what systemd passes to it.
fn is_ours_alone(name: &OsStr) -> bool {
    name.as_bytes().starts_with(ENVIRONMENT_PREFIX.as_bytes())
        || name == VARIABLE
        || PRIVATE_VARIABLES.iter().any(|private| name == *private)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::mark::RunId;

    fn pairs(text: &str) -> Vec<(OsString, OsString)> {
        let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn made(ours: &str, theirs: &str, is_unbuffered: bool) -> String {
        let mark = Mark {
            run: RunId([0xab; 16]),
            service: "web".to_owned(),
            n: 3,
        };
        let made = environment(pairs(ours).into_iter(), &pairs(theirs), is_unbuffered, &mark);
        let pairs: Vec<String> = (made.into_iter())
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        pairs.join(" ")
    }

    #[test]
    fn a_service_gets_nothing_that_is_meant_for_us() {
        let ours = "PATH=/bin THREADCAST_SET_PORT=1 THREADCAST_URL=http://h NOTIFY_SOCKET=/n WATCHDOG_USEC=1 LISTEN_FDS=2 \
                    LISTEN_PID=3 THREADCAST_RUN=other";
        let mark = format!("THREADCAST_RUN={}/web/3", "ab".repeat(16));
        assert_eq!(
            made(ours, "A=1 THREADCAST_RUN=forged", false),
            format!("A=1 PATH=/bin {mark} THREADCAST_URL=http://h")
        );
        // What the service's own settings say, it gets.
        assert_eq!(
            made("", "THREADCAST_SET_PORT=2", false),
            format!("{mark} THREADCAST_SET_PORT=2")
        );
    }

    #[test]
    fn python_keeps_nothing_back_unless_somebody_says_otherwise() {
        assert!(made("", "", true).starts_with("PYTHONUNBUFFERED=1 "));
        assert!(made("", "PYTHONUNBUFFERED=0", true).starts_with("PYTHONUNBUFFERED=0 "));
        assert!(made("PYTHONUNBUFFERED=0", "", true).starts_with("PYTHONUNBUFFERED=0 "));
        assert!(!made("", "", false).contains("PYTHON"));
    }
}
