//! The hash of a file whose beginning is written last: BLAKE3 is a tree, its branches can be hashed in any order.

use blake3::{
    Hasher,
    hazmat::{
        ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root,
        merge_subtrees_root,
    },
};

/// Bytes of a branch: a power of two, small enough to stay in a core's cache on its way through the threads.
pub(super) const BRANCH: usize = 256 * 1024;

/// A file's branches.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Bytes of the file.
    length: u64,
    branches: Vec<ChainingValue>,
}

/// The branch that begins at `offset`, a multiple of [`BRANCH`] above zero. `bytes` is not empty.
pub(super) fn branch(offset: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(bytes).finalize_non_root()
}

impl Tree {
    /// The next branch behind those there are: all but the last have [`BRANCH`] bytes.
    pub fn push(&mut self, value: ChainingValue, bytes: usize) {
        self.branches.push(value);
        self.length += bytes as u64;
    }

    /// The hash of `front` (whole branches, or all there is) and all branches behind it, hex.
    pub fn finish(self, front: &[u8]) -> String {
        let length = self.length + front.len() as u64;
        if length <= BRANCH as u64 {
            return blake3::hash(front).to_hex().to_string();
        }
        let front = front.chunks(BRANCH).enumerate();
        let mut all: Vec<_> =
            front.map(|(index, bytes)| branch((index * BRANCH) as u64, bytes)).collect();
        all.extend(self.branches);
        let (left, right) = halves(&all, length);
        let root = merge_subtrees_root(&left, &right, Mode::Hash);
        root.to_hex().to_string()
    }
}

fn halves(branches: &[ChainingValue], length: u64) -> (ChainingValue, ChainingValue) {
    let left = left_subtree_len(length);
    let at = usize::try_from(left).unwrap_or(usize::MAX) / BRANCH;
    let (first, second) = branches.split_at(at.min(branches.len()));
    (node(first, left), node(second, length - left))
}

fn node(branches: &[ChainingValue], length: u64) -> ChainingValue {
    if branches.len() <= 1 {
        return branches.first().copied().unwrap_or_default();
    }
    let (left, right) = halves(branches, length);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_hashes_as_the_bytes_do() {
        let whole = |length: usize| (0..length).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>();
        for branches in [0usize, 1, 2, 3, 5, 8, 11] {
            for more in [1, 1023, 1024, 4097, BRANCH] {
                for front in 1..=branches.min(3) + 1 {
                    let bytes = whole(branches * BRANCH + more);
                    let front = &bytes[..(front * BRANCH).min(bytes.len())];
                    let mut tree = Tree::default();
                    for (index, part) in bytes[front.len()..].chunks(BRANCH).enumerate() {
                        let offset = front.len() + index * BRANCH;
                        tree.push(branch(offset as u64, part), part.len());
                    }
                    assert_eq!(tree.finish(front), blake3::hash(&bytes).to_hex().to_string());
                }
            }
        }
    }
}
