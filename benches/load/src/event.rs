//! The events that are sent, and the check of what comes back.
//!
//! An event is a state change as the original engine spells it, padded to the wanted size. Each machine moves back and
//! forth between two states, so that the server learns from each event. An event has its number at a known place, so that
//! reading one costs the generator a few nanoseconds, and its whole text is known to whoever gets it.

/// Machines that take turns.
const MACHINES: u64 = 20;
/// What they do: from which state, to which, and why. All of them are equally long together.
const MOVES: [[&str; 3]; 2] = [["waiting", "working", "start"], ["working", "waiting", "ended"]];
/// Digits of a number.
const DIGITS: usize = 10;
/// Shortest event that can be made.
pub const BYTES_MIN: usize = 200;

/// What one number became.
#[derive(Debug)]
struct Template {
    text: Vec<u8>,
}

/// Makes and reads the events of one run.
#[derive(Debug)]
pub struct Events {
    templates: Vec<Template>,
    /// Where the number begins.
    at: usize,
}

impl Events {
    /// Events of `bytes` bytes each, at least [`BYTES_MIN`].
    pub fn new(bytes: usize) -> Events {
        let moves = MOVES
            .iter()
            .flat_map(|change| (0..MACHINES).map(move |machine| (machine, change)));
        let templates: Vec<Template> = moves
            .map(|(machine, [from, to, trigger])| {
                let mut text = format!(
                    "{{\"machine_name\": \"load_{machine:02}\", \"type\": \"state_change\", \"payload\": {{\"job_id\": \
                     \"{zeros}\", \"from_state\": \"{from}\", \"to_state\": \"{to}\", \"event_trigger\": \"{trigger}\", \
                     \"pad\": \"",
                    zeros = "0".repeat(DIGITS)
                );
                let end = "\"}}";
                let pad = bytes.max(BYTES_MIN) - text.len() - end.len();
                text.push_str(&"x".repeat(pad));
                text.push_str(end);
                Template { text: text.into_bytes() }
            })
            .collect();
        let text = &templates[0].text;
        let at = text
            .windows(DIGITS)
            .position(|window| window == [b'0'; DIGITS])
            .unwrap_or(0);
        Events { templates, at }
    }

    fn of(&self, number: u64) -> &Template {
        &self.templates[number as usize % self.templates.len()]
    }

    /// The event with this number, into `into`.
    pub fn write(&self, number: u64, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(&self.of(number).text);
        let mut rest = number;
        for digit in into[self.at..self.at + DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    /// The number of what came, if it is one of our events; `Err` if it is one of ours and was changed on its way.
    /// A server that writes its JSON anew (`exact` is false) is held to the number alone.
    pub fn read(&self, text: &[u8], exact: bool) -> Option<Result<u64, u64>> {
        if let Some(number) = text.get(self.at..self.at + DIGITS).and_then(digits) {
            let whole = &self.of(number).text;
            let same = text.len() == whole.len()
                && text[..self.at] == whole[..self.at]
                && text[self.at + DIGITS..] == whole[self.at + DIGITS..];
            if same {
                return Some(Ok(number));
            }
        }
        let key = b"\"job_id\":";
        let at = text.windows(key.len()).position(|window| window == key)? + key.len();
        let rest = text[at..]
            .iter()
            .position(|byte| *byte == b'"')
            .map(|quote| &text[at + quote + 1..])?;
        let number = rest.get(..DIGITS).and_then(digits)?;
        Some(if exact { Err(number) } else { Ok(number) })
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for bytes in [200, 2000, 50_000] {
            let events = Events::new(bytes);
            let mut text = Vec::new();
            for number in [0, 1, 19, 20, 39, 40, 1_234_567_890] {
                events.write(number, &mut text);
                assert_eq!(text.len(), bytes);
                assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
                assert_eq!(events.read(&text, true), Some(Ok(number)));
            }
        }
    }

    #[test]
    fn what_was_changed_on_its_way_is_noticed() {
        let events = Events::new(200);
        let mut text = Vec::new();
        events.write(7, &mut text);
        text.insert(1, b' ');
        assert_eq!(events.read(&text, true), Some(Err(7)));
        assert_eq!(events.read(&text, false), Some(Ok(7)));
        assert_eq!(events.read(b"{\"type\":\"ping\"}", true), None);
    }
}
