//! Queues in blocks of bounded size. A long queue takes many small allocations instead of a large
//! one that is copied whenever it grows, and gives each back as soon as it has been read.

use std::collections::VecDeque;

/// Size of a full block in bytes.
const BLOCK_BYTES: usize = 16 * 1024;

/// A deque in blocks. All blocks between the first and the last are full.
#[derive(Debug)]
pub(super) struct BlockDeque<T> {
    blocks: VecDeque<VecDeque<T>>,
}

impl<T> BlockDeque<T> {
    /// Elements of a full block.
    const BLOCK: usize = BLOCK_BYTES / size_of::<T>();

    pub(super) const fn new() -> Self {
        Self {
            blocks: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        let (Some(first), Some(last)) = (self.blocks.front(), self.blocks.back()) else {
            return 0;
        };
        match self.blocks.len() {
            1 => first.len(),
            blocks => first.len() + (blocks - 2) * Self::BLOCK + last.len(),
        }
    }

    pub(super) fn push_back(&mut self, element: T) {
        match self.blocks.back_mut() {
            Some(last) if last.len() < Self::BLOCK => last.push_back(element),
            // A first block grows with its elements, because most queues are short.
            None => self.blocks.push_back(VecDeque::from([element])),
            Some(_) => {
                let mut block = VecDeque::with_capacity(Self::BLOCK);
                block.push_back(element);
                self.blocks.push_back(block);
            }
        }
    }

    pub(super) fn push_front(&mut self, element: T) {
        match self.blocks.front_mut() {
            Some(first) if first.len() < Self::BLOCK => first.push_front(element),
            _ => self.blocks.push_front(VecDeque::from([element])),
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<T> {
        let first = self.blocks.front_mut()?;
        let element = first.pop_front();
        if first.is_empty() {
            self.blocks.pop_front();
        }
        element
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let first = self.blocks.front()?.len();
        let Some(behind) = at.checked_sub(first) else {
            return self.blocks[0].get_mut(at);
        };
        let block = self.blocks.get_mut(1 + behind / Self::BLOCK)?;
        block.get_mut(behind % Self::BLOCK)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.blocks.capacity() + self.blocks.iter().map(VecDeque::capacity).sum::<usize>()
    }
}

impl<T> IntoIterator for BlockDeque<T> {
    type Item = T;
    type IntoIter = std::iter::Flatten<std::collections::vec_deque::IntoIter<VecDeque<T>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.blocks.into_iter().flatten()
    }
}

/// Pieces of bytes in order. Each piece is contiguous.
#[derive(Debug)]
pub(super) struct ByteQueue {
    blocks: VecDeque<Vec<u8>>,
    /// Bytes of the first block that have been taken.
    taken: usize,
    len: usize,
}

impl ByteQueue {
    pub(super) const EMPTY: Self = Self {
        blocks: VecDeque::new(),
        taken: 0,
        len: 0,
    };

    /// Bytes in the queue.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.len += piece.len();
        match self.blocks.back_mut() {
            Some(last) if last.len() + piece.len() <= BLOCK_BYTES => last.extend_from_slice(piece),
            None => self.blocks.push_back(piece.to_vec()),
            Some(_) => {
                let mut block = Vec::with_capacity(BLOCK_BYTES.max(piece.len()));
                block.extend_from_slice(piece);
                self.blocks.push_back(block);
            }
        }
    }

    /// Takes the oldest piece, which has this length.
    pub(super) fn take(&mut self, len: usize) -> &[u8] {
        if len > 0 && self.blocks.front().map(Vec::len) == Some(self.taken) {
            self.blocks.pop_front();
            self.taken = 0;
        }
        let from = self.taken;
        self.taken += len;
        self.len -= len;
        match self.blocks.front() {
            Some(first) => &first[from..self.taken],
            None => &[],
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.blocks.capacity() + self.blocks.iter().map(Vec::capacity).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        PushBack(usize),
        PushFront(u8),
        Pop(usize),
        Change(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1usize..1500).prop_map(Step::PushBack),
            (1u8..4).prop_map(Step::PushFront),
            (1usize..1500).prop_map(Step::Pop),
            any::<usize>().prop_map(Step::Change),
        ]
    }

    proptest! {
        #[test]
        fn a_block_deque_is_a_deque(steps in proptest::collection::vec(step(), 1..40)) {
            // 512 elements a block.
            let (mut deque, mut model) = (BlockDeque::<[u64; 4]>::new(), VecDeque::new());
            let mut next = 0;
            for step in steps {
                match step {
                    Step::PushBack(times) => for _ in 0..times {
                        next += 1;
                        deque.push_back([next; 4]);
                        model.push_back([next; 4]);
                    },
                    Step::PushFront(times) => for _ in 0..times {
                        next += 1;
                        deque.push_front([next; 4]);
                        model.push_front([next; 4]);
                    },
                    Step::Pop(times) => for _ in 0..times {
                        prop_assert_eq!(deque.pop_front(), model.pop_front());
                    },
                    Step::Change(at) => {
                        let at = at % (model.len() + 2);
                        next += 1;
                        prop_assert_eq!(deque.get_mut(at).is_some(), at < model.len());
                        if let (Some(one), Some(other)) = (deque.get_mut(at), model.get_mut(at)) {
                            (*one, *other) = ([next; 4], [next; 4]);
                        }
                    }
                }
                prop_assert_eq!(deque.len(), model.len());
                prop_assert_eq!(deque.is_empty(), model.is_empty());
                prop_assert!(deque.blocks.iter().all(|block| block.capacity() <= 512));
            }
            prop_assert!(deque.iter().rev().eq(model.iter().rev()));
            prop_assert!(deque.into_iter().eq(model));
        }

        #[test]
        fn bytes_are_taken_as_they_were_pushed(
            steps in proptest::collection::vec((0usize..3000, 0usize..3), 1..100),
        ) {
            let (mut queue, mut model) = (ByteQueue::EMPTY, VecDeque::<Vec<u8>>::new());
            for (at, (len, takes)) in steps.into_iter().enumerate() {
                // Some pieces are larger than a block.
                let piece = vec![at as u8; if len > 2900 { len * 10 } else { len }];
                queue.push(&piece);
                model.push_back(piece);
                for _ in 0..takes {
                    let Some(piece) = model.pop_front() else { break };
                    prop_assert_eq!(queue.take(piece.len()), piece.as_slice());
                }
                prop_assert_eq!(queue.len(), model.iter().map(Vec::len).sum::<usize>());
            }
        }
    }
}
