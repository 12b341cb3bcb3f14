//! Patterns with wildcards anywhere, all matched in one pass over the name.
//!
//! Trying one pattern after the other takes, at worst, a step for each byte of the patterns and each byte of the name:
//! 100 us for one filter and one event, and a client can choose its filter. So the patterns are one automaton, whose
//! states are the bits of a few words: state N of a pattern means that its first N bytes have matched, not counting
//! `*`, and all states take a byte of the name together.

/// Patterns of one list.
pub(super) const PATTERNS_MAX: usize = 8;
/// Bytes of these patterns together.
pub(super) const BYTES_MAX: usize = 256;
/// Bytes of a name that such a pattern can match. The names of machines and types are far shorter; a longer one is
/// matched by exact patterns and beginnings only.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// Each pattern has a state more than it has bytes.
const WORDS_MAX: usize = (BYTES_MAX + PATTERNS_MAX).div_ceil(64);

/// The automaton, in as many words as it needs; usual lists need one.
#[derive(Clone, Debug)]
pub(super) enum Wild {
    One(Box<Automaton<1>>),
    Two(Box<Automaton<2>>),
    Most(Box<Automaton<WORDS_MAX>>),
}

impl Wild {
    /// Of `patterns`, at most [`PATTERNS_MAX`], with at most [`BYTES_MAX`] bytes together.
    pub(super) fn new(patterns: &[&str]) -> Wild {
        let states: usize = patterns.iter().map(|pattern| states(pattern)).sum();
        match states.div_ceil(64) {
            0..=1 => Wild::One(Box::new(Automaton::new(patterns))),
            2 => Wild::Two(Box::new(Automaton::new(patterns))),
            _ => Wild::Most(Box::new(Automaton::new(patterns))),
        }
    }

    /// Returns whether one of the patterns matches the whole of `name`; none matches one over [`NAME_BYTES_MAX`].
    pub(super) fn matches(&self, name: &str) -> bool {
        let bytes = name.as_bytes();
        bytes.len() <= NAME_BYTES_MAX
            && match self {
                Wild::One(automaton) => automaton.matches(bytes),
                Wild::Two(automaton) => automaton.matches(bytes),
                Wild::Most(automaton) => automaton.matches(bytes),
            }
    }
}

fn states(pattern: &str) -> usize {
    pattern.bytes().filter(|byte| *byte != b'*').count() + 1
}

/// A set of states.
type States<const WORDS: usize> = [u64; WORDS];

/// See the head of this module.
#[derive(Clone, Debug)]
pub(super) struct Automaton<const WORDS: usize> {
    /// Which of `rows` is a byte's. All bytes that no pattern has share two.
    row_of: [u8; 256],
    /// The states that a byte takes to the next one.
    rows: Vec<States<WORDS>>,
    /// The states that stay with any byte: a `*` takes it.
    stay: States<WORDS>,
    /// Those that stay with a byte in the middle of a character: also where a `?` has taken the beginning of it.
    stay_inside: States<WORDS>,
    start: States<WORDS>,
    /// The whole pattern has matched.
    end: States<WORDS>,
}

/// The row of bytes that no pattern has and that begin a character.
const OTHER: u8 = 0;
/// The row of bytes that no pattern has and that stand in the middle of a character.
const OTHER_CONTINUATION: u8 = 1;

impl<const WORDS: usize> Automaton<WORDS> {
    fn new(patterns: &[&str]) -> Self {
        let mut row_of: [u8; 256] = std::array::from_fn(|byte| {
            if is_continuation(byte as u8) {
                OTHER_CONTINUATION
            } else {
                OTHER
            }
        });
        // Of each row, one of its bytes.
        let mut bytes = vec![0x00, 0x80];
        for byte in patterns.iter().flat_map(|pattern| pattern.bytes()) {
            if row_of[usize::from(byte)] <= OTHER_CONTINUATION {
                // At most as many as there are bytes in UTF-8, 243.
                row_of[usize::from(byte)] = bytes.len() as u8;
                bytes.push(byte);
            }
        }
        let mut own = Automaton {
            row_of,
            rows: vec![[0; WORDS]; bytes.len()],
            stay: [0; WORDS],
            stay_inside: [0; WORDS],
            start: [0; WORDS],
            end: [0; WORDS],
        };
        let mut state = 0;
        for pattern in patterns {
            set(&mut own.start, state);
            for sign in pattern.bytes() {
                state = own.add(sign, state, &bytes);
            }
            set(&mut own.end, state);
            state += 1;
        }
        own
    }

    /// Adds a byte of a pattern, which is expected in `state`; returns the state that it leads to.
    fn add(&mut self, sign: u8, state: usize, bytes: &[u8]) -> usize {
        match sign {
            b'*' => {
                set(&mut self.stay, state);
                set(&mut self.stay_inside, state);
                return state;
            }
            b'?' => {
                let rows = self.rows.iter_mut().zip(bytes);
                rows.filter(|(_, byte)| !is_continuation(**byte))
                    .for_each(|(row, _)| set(row, state));
                set(&mut self.stay_inside, state + 1);
            }
            _ => set(&mut self.rows[usize::from(self.row_of[usize::from(sign)])], state),
        }
        state + 1
    }

    fn matches(&self, name: &[u8]) -> bool {
        let mut states = self.start;
        for byte in name {
            let row = &self.rows[usize::from(self.row_of[usize::from(*byte)])];
            let stay = if is_continuation(*byte) {
                &self.stay_inside
            } else {
                &self.stay
            };
            let (mut carry, mut alive) = (0, 0);
            for word in 0..WORDS {
                // The last state of a pattern never goes on, so none comes into the next pattern's.
                let go_on = states[word] & row[word];
                states[word] = go_on << 1 | carry | states[word] & stay[word];
                carry = go_on >> 63;
                alive |= states[word];
            }
            if alive == 0 {
                return false;
            }
        }
        states.iter().zip(self.end).any(|(states, end)| states & end != 0)
    }
}

fn set<const WORDS: usize>(states: &mut States<WORDS>, state: usize) {
    states[state / 64] |= 1 << (state % 64);
}

/// Returns whether it is a byte of a UTF-8 character, and not its first.
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}
