//! The order in which services start: phases, each of which waits for earlier ones only.

/// Sorts things into phases. `waits_for[i]` are the numbers of those that thing `i` waits for.
///
/// # Errors
/// Some wait for each other in a circle. Returns the circle: each waits for the next, and the last for the first.
pub(super) fn phases(waits_for: &[Vec<usize>]) -> Result<Vec<Vec<usize>>, Vec<usize>> {
    let mut phases: Vec<Vec<usize>> = Vec::new();
    let mut is_placed = vec![false; waits_for.len()];
    loop {
        let next: Vec<usize> = (0..waits_for.len())
            .filter(|thing| !is_placed[*thing] && waits_for[*thing].iter().all(|other| is_placed[*other]))
            .collect();
        if next.is_empty() {
            break;
        }
        next.iter().for_each(|thing| is_placed[*thing] = true);
        phases.push(next);
    }
    match is_placed.iter().position(|is_placed| !is_placed) {
        None => Ok(phases),
        Some(left) => Err(circle(waits_for, &is_placed, left)),
    }
}

/// A circle among those that are not placed, each of which waits for another such one.
fn circle(waits_for: &[Vec<usize>], is_placed: &[bool], from: usize) -> Vec<usize> {
    let mut way: Vec<usize> = Vec::new();
    let mut at = from;
    loop {
        if let Some(begin) = way.iter().position(|thing| *thing == at) {
            return way.split_off(begin);
        }
        way.push(at);
        match waits_for[at].iter().find(|other| !is_placed[**other]) {
            Some(other) => at = *other,
            // Such a thing would have been placed.
            None => return way,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_waits_for_earlier_ones_only() {
        // 0 and 3 wait for nothing; 1 for 0; 2 for 1 and 3.
        assert_eq!(
            phases(&[vec![], vec![0], vec![1, 3], vec![]]),
            Ok(vec![vec![0, 3], vec![1], vec![2]])
        );
        assert_eq!(phases(&[]), Ok(vec![]));
    }

    #[test]
    fn a_circle_is_named_without_those_that_only_wait_for_it() {
        assert_eq!(phases(&[vec![1], vec![2], vec![1], vec![]]), Err(vec![1, 2]));
        assert_eq!(phases(&[vec![0]]), Err(vec![0]));
    }

    #[test]
    fn random_things_get_an_order_or_a_circle_that_is_one() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut orders, mut circles) = (0, 0);
        for _ in 0..2000 {
            let count = rng.usize(1..7);
            let waits_for: Vec<Vec<usize>> = (0..count)
                .map(|_| (0..rng.usize(0..3)).map(|_| rng.usize(..count)).collect())
                .collect();
            match phases(&waits_for) {
                Ok(phases) => {
                    orders += 1;
                    let phase_of = |thing| phases.iter().position(|phase| phase.contains(&thing)).unwrap();
                    for (thing, others) in waits_for.iter().enumerate() {
                        assert!(others.iter().all(|other| phase_of(*other) < phase_of(thing)));
                    }
                }
                Err(circle) => {
                    circles += 1;
                    for (at, thing) in circle.iter().enumerate() {
                        let next = circle[(at + 1) % circle.len()];
                        assert!(waits_for[*thing].contains(&next));
                    }
                }
            }
        }
        assert!(orders > 100 && circles > 100);
    }
}
