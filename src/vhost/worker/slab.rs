//! Objects under small numbers, which go through the kernel as tags.

/// Keeps objects until they are taken out again; a number is used anew then.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Option<T>>,
    vacant: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab {
            entries: Vec::new(),
            vacant: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Keeps `object`, and returns its number.
    pub(super) fn insert(&mut self, object: T) -> usize {
        match self.vacant.pop() {
            Some(number) => {
                self.entries[number] = Some(object);
                number
            }
            None => {
                self.entries.push(Some(object));
                self.entries.len() - 1
            }
        }
    }

    /// The object.
    ///
    /// # Panics
    /// If there is none of this number, as in [`Slab::take`].
    pub(super) fn get_mut(&mut self, number: usize) -> &mut T {
        self.entries[number].as_mut().expect("kept until it is taken")
    }

    /// Takes the object out.
    pub(super) fn take(&mut self, number: usize) -> T {
        let object = self.entries[number].take().expect("kept until it is taken");
        self.vacant.push(number);
        object
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.vacant.len() == self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_anew() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_ne!(a, b);
        assert_eq!(slab.take(a), 'a');
        assert_eq!(slab.insert('c'), a);
        assert_eq!((*slab.get_mut(a), *slab.get_mut(b)), ('c', 'b'));
        assert!(!slab.is_empty());
        slab.take(a);
        slab.take(b);
        assert!(slab.is_empty());
    }
}
