/// Number of a subscription within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

impl SlotId {
    /// Index into the slots of the connection.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
