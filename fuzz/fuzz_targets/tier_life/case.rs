//! What an input says: a kind of tier, and what is done to it.

use arbitrary::{Arbitrary, Unstructured};

#[derive(Debug, Arbitrary)]
pub enum Op {
    Allocate {
        how: How,
    },
    AllocateMany {
        n: u8,
    },
    End {
        which: u8,
        how: End,
    },
    DetachFor {
        which: u8,
        seconds: u8,
    },
    /// With any handle that was ever made.
    Attach {
        which: u8,
    },
    ReleaseHandle {
        which: u8,
    },
    Retire {
        which: u8,
    },
    Read {
        which: u8,
    },
    IntoShared {
        which: u8,
    },
    CloneShared {
        which: u8,
    },
    DropShared {
        which: u8,
        names_its_line: bool,
    },
    IntoLease {
        which: u8,
    },
    Retain {
        keep: Verdict,
    },
    Reclaim,
    Time {
        seconds: u8,
    },
    GrowTo {
        slots: u8,
    },
    ShrinkTo {
        slots: u8,
    },
    Tell {
        whom: Code,
        what: Verdict,
    },
    /// From here to its end, everything happens under a pin, with references to all shared values.
    Pin,
    Unpin,
    CloneTier,
    /// These two only if they are `sure`, one time in eight: there is little to be done after them.
    DropTier {
        sure: u8,
    },
    Close {
        sure: u8,
    },
}

/// As many as the input gives.
#[derive(Debug)]
pub struct Ops(pub Vec<Op>);

impl<'a> Arbitrary<'a> for Ops {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut ops = Vec::new();
        while !input.is_empty() {
            ops.push(Op::arbitrary(input)?);
        }
        Ok(Ops(ops))
    }
}

#[derive(Debug, Arbitrary)]
pub enum How {
    Try,
    TimeOut,
    Poll,
}

#[derive(Debug, Arbitrary)]
pub enum End {
    Drop,
    Release,
    Detach,
    Share,
    Discard,
    Take,
}

#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
pub enum Verdict {
    Good,
    Bad,
    Panic,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Code {
    Factory,
    Reset,
    Clean,
    OnAllocate,
    OnRelease,
    Drop,
}

#[derive(Debug, Arbitrary)]
pub struct Case {
    pub capacity: u8,
    pub min: Option<u8>,
    pub resets: bool,
    pub cleans: bool,
    pub on_allocate: bool,
    pub on_release: bool,
    pub max_age: Option<u8>,
    pub idle: Option<u8>,
    pub leaks: Option<u8>,
    pub ops: Ops,
}
