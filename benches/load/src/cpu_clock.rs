//! The processor time of another process, to the nanosecond; clock_getcpuclockid(3), which rustix lacks.
#![allow(unsafe_code)]

use rustix::process::Pid;

/// Processor seconds of all threads of `pid`, those that have ended included; `None` when there is no such process.
pub fn process_cpu(pid: Pid) -> Option<f64> {
    let mut clock: libc::clockid_t = 0;
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write one value each through a pointer to a local variable of the right type.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid.as_raw_pid(), &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut now) != 0
    };
    (!failed).then_some(now.tv_sec as f64 + now.tv_nsec as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    #[test]
    fn our_own_time_is_what_it_says() {
        let before = crate::machine::own_cpu();
        let shown = super::process_cpu(rustix::process::getpid()).unwrap();
        assert!(before <= shown && shown <= crate::machine::own_cpu());
    }
}
