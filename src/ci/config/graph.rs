//! The order of steps: each after those it needs.

use std::collections::BTreeMap;

/// Returns the numbers of the steps so that each comes after those it needs,
/// otherwise in the order given; or the steps of a cycle, in its order.
/// Needs that name no step are passed over.
pub(super) fn order(steps: &[(&str, Vec<&str>)]) -> Result<Vec<usize>, Vec<usize>> {
    let numbers: BTreeMap<&str, usize> = steps.iter().map(|(name, _)| *name).zip(0..).collect();
    let needs: Vec<Vec<usize>> = steps
        .iter()
        .map(|(_, needs)| {
            let known = needs.iter().filter_map(|need| numbers.get(need));
            known.copied().collect()
        })
        .collect();
    let mut done = vec![false; steps.len()];
    let mut order = Vec::with_capacity(steps.len());
    while order.len() < steps.len() {
        let ready =
            (0..steps.len()).find(|step| !done[*step] && needs[*step].iter().all(|n| done[*n]));
        match ready {
            Some(step) => {
                done[step] = true;
                order.push(step);
            }
            None => return Err(cycle(&needs, &done)),
        }
    }
    Ok(order)
}

/// Follows needs that are not done until a step comes again.
fn cycle(needs: &[Vec<usize>], done: &[bool]) -> Vec<usize> {
    let open = |step: &&usize| !done[**step];
    let mut path: Vec<usize> = Vec::new();
    let mut next = done.iter().position(|done| !done);
    while let Some(step) = next {
        if let Some(start) = path.iter().position(|seen| *seen == step) {
            return path.split_off(start);
        }
        path.push(step);
        next = needs[step].iter().find(open).copied();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_come_first_and_cycles_are_found() {
        let steps = [("c", vec!["b", "a"]), ("a", vec![]), ("b", vec!["a"])];
        assert_eq!(order(&steps), Ok(vec![1, 2, 0]));
        let steps = [
            ("a", vec!["b"]),
            ("b", vec!["c"]),
            ("c", vec!["b"]),
            ("d", vec![]),
        ];
        assert_eq!(order(&steps), Err(vec![1, 2]));
        assert_eq!(order(&[("a", vec!["a"])]), Err(vec![0]));
    }
}
