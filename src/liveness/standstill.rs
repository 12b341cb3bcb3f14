//! What the kernel knows of a thread that makes no progress: it computes, it waits, or it gets no processor.

use crate::process::clock::pause;
use crate::process::task::{TaskFacts, TaskPlace, syscall_name};
use std::fmt;
use std::time::{Duration, Instant};

/// A thread that was running, or could have run, for this part of the time is not one that waits.
const RUNNABLE_PART: u32 = 2;
/// Of a thread that could run: with less than this part of the time on a processor it is starved.
const STARVED_PART: u32 = 10;

/// Looks at one thread: one that waits again and again may be met awake.
const LOOKS: u32 = 20;
/// Pause between two of these looks, 1 ms: all of them together delay a report by 20 ms.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// A thread's times at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    at: Instant,
    cpu: Duration,
    run_delay: Duration,
}

impl Sample {
    /// Of thread `id` of this process, now; `None` when there is no such thread.
    pub fn of(id: i32) -> Option<Sample> {
        TaskFacts::read(id).map(|facts| Sample::from(&facts))
    }

    fn from(facts: &TaskFacts) -> Sample {
        Sample {
            at: Instant::now(),
            cpu: facts.cpu,
            run_delay: facts.run_delay,
        }
    }
}

/// How a thread stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standstill {
    /// It computes, for this percentage of a processor.
    Busy { percent: u32 },
    /// The kernel holds it: in this function, on this system call, as far as the kernel tells; `deep` if no signal ends
    /// that (a disk, most often).
    Blocked { wchan: String, syscall: String, deep: bool },
    /// It could run, but has had a processor for this percentage of the time only.
    Starved { percent: u32 },
    /// The kernel does not tell.
    Unknown,
}

impl Standstill {
    /// Of thread `id`, given its times when it became late.
    pub fn of(id: i32, before: Option<&Sample>) -> Standstill {
        let mut found = Standstill::Unknown;
        for _ in 0..LOOKS {
            let Some(facts) = TaskFacts::read(id) else { break };
            found = Standstill::judge(&facts, before, &Sample::from(&facts));
            if found != Standstill::Unknown {
                break;
            }
            // It sleeps most of the time, and was just awake.
            pause(BETWEEN_LOOKS);
        }
        found
    }

    fn judge(facts: &TaskFacts, before: Option<&Sample>, now: &Sample) -> Standstill {
        if let Some(before) = before {
            let took = now.at.saturating_duration_since(before.at);
            let cpu = now.cpu.saturating_sub(before.cpu);
            let delay = now.run_delay.saturating_sub(before.run_delay);
            if !took.is_zero() && cpu + delay >= took / RUNNABLE_PART {
                let percent = ((cpu.as_secs_f64() / took.as_secs_f64()) * 100.0).round() as u32;
                return if cpu < took / STARVED_PART {
                    Standstill::Starved { percent }
                } else {
                    Standstill::Busy { percent }
                };
            }
        }
        match facts.state {
            'S' | 'D' | 'I' => Standstill::Blocked {
                wchan: facts.wchan.clone(),
                syscall: match facts.at {
                    TaskPlace::Waiting {
                        syscall: Some(number), ..
                    } => syscall_name(number).map_or_else(|| format!("number {number}"), str::to_owned),
                    _ => String::new(),
                },
                deep: facts.state == 'D',
            },
            _ => Standstill::Unknown,
        }
    }
}

impl fmt::Display for Standstill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standstill::Busy { percent } => write!(f, "busy: it computes, at {percent} % of a processor"),
            Standstill::Starved { percent } => {
                write!(
                    f,
                    "starved: it could run, but got a processor for {percent} % of the time"
                )
            }
            Standstill::Blocked { wchan, syscall, deep } => {
                f.write_str("blocked: it waits in the kernel")?;
                if !syscall.is_empty() {
                    write!(f, ", system call {syscall}")?;
                }
                if !wchan.is_empty() {
                    write!(f, ", in {wchan}")?;
                }
                if *deep {
                    f.write_str(", where no signal reaches it (a disk or a network file system, most often)")?;
                }
                Ok(())
            }
            Standstill::Unknown => f.write_str("the kernel does not tell what it does"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(state: char, cpu_ms: u64, delay_ms: u64) -> Standstill {
        let at = Instant::now();
        let before = Sample {
            at,
            cpu: Duration::from_secs(3),
            run_delay: Duration::from_secs(1),
        };
        let now = Sample {
            at: at + Duration::from_secs(10),
            cpu: before.cpu + Duration::from_millis(cpu_ms),
            run_delay: before.run_delay + Duration::from_millis(delay_ms),
        };
        let facts = TaskFacts {
            state,
            wchan: "futex_do_wait".to_owned(),
            at: TaskPlace::Waiting {
                syscall: Some(libc::SYS_futex),
                sp: 1,
                pc: 1,
            },
            ..TaskFacts::default()
        };
        Standstill::judge(&facts, Some(&before), &now)
    }

    #[test]
    fn who_computes_who_waits_and_who_gets_no_processor_are_told_apart() {
        assert_eq!(judged('R', 9900, 50), Standstill::Busy { percent: 99 });
        // A spinning thread on a crowded host gets little, but not nothing.
        assert_eq!(judged('R', 3000, 6900), Standstill::Busy { percent: 30 });
        assert_eq!(judged('R', 100, 9800), Standstill::Starved { percent: 1 });
        let blocked = judged('S', 10, 5);
        assert_eq!(
            blocked.to_string(),
            "blocked: it waits in the kernel, system call futex, in futex_do_wait"
        );
        assert!(judged('D', 0, 0).to_string().contains("no signal reaches it"));
    }
}
