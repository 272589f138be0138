//! Draws by weight in constant time, however many backends there are: the alias method.
//!
//! Every place holds a part of its own backend and, above that, of one other (Vose, 1991): a draw
//! is a place by chance, and then one of the two.

/// The table of one set of backends.
#[derive(Debug, Default)]
pub(super) struct Draw {
    places: Box<[Place]>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Below this, of 2^32, the draw is the place's own.
    own: u32,
    other: u32,
}

impl Draw {
    /// Makes a table; what is drawn are places in the list of weights.
    pub(super) fn new(weights: impl ExactSizeIterator<Item = u16> + Clone) -> Self {
        let count = weights.len();
        let sum: u64 = weights.clone().map(u64::from).sum();
        if sum == 0 {
            return Self::default();
        }
        // Of `sum`, each place takes as much as is in one share of the average.
        let mut rests: Vec<u64> = weights.map(|weight| u64::from(weight) * count as u64).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) =
            (0..count).partition(|index| rests[*index] < sum);
        let place = |own: u64, other: usize| Place {
            own: u32::try_from((own << 32) / sum).unwrap_or(u32::MAX),
            other: u32::try_from(other).unwrap_or(u32::MAX),
        };
        let mut places: Vec<Place> = (0..count).map(|index| place(sum, index)).collect();
        while let (Some(low), Some(high)) = (poor.pop(), rich.last().copied()) {
            places[low] = place(rests[low], high);
            rests[high] -= sum - rests[low];
            if rests[high] < sum {
                poor.extend(rich.pop());
            }
        }
        Self { places: places.into() }
    }

    /// Draws one; `None` if there is nothing to draw.
    pub(super) fn one(&self) -> Option<usize> {
        // One number of 64 bits is both: its upper half the place, its lower half the choice.
        let chance = fastrand::u64(..);
        let index = ((chance >> 32) * self.places.len() as u64) >> 32;
        let index = usize::try_from(index).ok()?;
        let place = self.places.get(index)?;
        let low = u32::try_from(chance & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Some(if low < place.own { index } else { usize::try_from(place.other).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(Draw::new([].into_iter()).one(), None);
    }

    proptest! {
        /// The table itself, not a sample of it: what all places hold of a backend is its share.
        #[test]
        fn what_a_backend_holds_of_all_places_is_its_share(
            weights in prop::collection::vec(1u16..=256, 1..60),
        ) {
            let draw = Draw::new(weights.iter().copied());
            let sum: f64 = weights.iter().copied().map(f64::from).sum();
            let mut held = vec![0.0; weights.len()];
            for (index, place) in draw.places.iter().enumerate() {
                let own = (f64::from(place.own) / 2f64.powi(32)).min(1.0);
                held[index] += own;
                held[place.other as usize] += 1.0 - own;
            }
            for (held, weight) in held.iter().zip(&weights) {
                let share = f64::from(*weight) / sum;
                prop_assert!((held / weights.len() as f64 - share).abs() < 1e-6);
            }
        }
    }
}
