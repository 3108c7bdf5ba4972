//! What an input says: whether there is an overflow, and what is done to the pool.

use arbitrary::{Arbitrary, Result, Unstructured};
use tierpool::{Limit, Spill, Watermarks};

use crate::model::{TENANTS, TIERS};

#[derive(Debug, Arbitrary)]
pub struct Case {
    pub overflow: bool,
    pub ops: Ops,
}

#[derive(Debug, Arbitrary)]
pub enum Op {
    Allocate {
        want: Want,
        prepared: bool,
    },
    Group {
        #[arbitrary(with = group)]
        wants: Vec<Want>,
    },
    Reserve {
        want: Want,
        #[arbitrary(with = |input: &mut Unstructured| input.int_in_range(0..=7))]
        n: usize,
    },
    Draw {
        which: u8,
    },
    DropReservation {
        which: u8,
    },
    End {
        which: u8,
        how: End,
    },
    Attach {
        which: u8,
    },
    ReleaseHandle {
        which: u8,
    },
    /// Makes futures, and polls each once.
    Wait {
        want: Want,
        #[arbitrary(with = |input: &mut Unstructured| input.int_in_range(1..=4))]
        times: usize,
    },
    Poll {
        which: u8,
    },
    Cancel {
        which: u8,
    },
    SetQuota {
        #[arbitrary(with = |input: &mut Unstructured| input.int_in_range(1..=TENANTS.len() - 1))]
        tenant: usize,
        #[arbitrary(with = limit)]
        hard: Limit,
        #[arbitrary(with = limit)]
        soft: Limit,
    },
    SetWatermarks {
        #[arbitrary(with = |input: &mut Unstructured| input.choose_index(TIERS.len()))]
        tier: usize,
        #[arbitrary(with = marks)]
        marks: Watermarks,
    },
    /// Longer than a want counts and than a grant stands that nobody takes; and a pass of the reclaimer.
    Time,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum End {
    Drop,
    Release,
    IntoPool,
    Detach,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    pub tenant: usize,
    pub class: usize,
    pub bytes: usize,
    pub spill: Spill,
}

impl<'a> Arbitrary<'a> for Want {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Want {
            tenant: input.choose_index(TENANTS.len())?,
            class: input.choose_index(4)?,
            bytes: *input.choose(&[64, 65, 256, 257, 1024, 0, 1025, 3000])?,
            spill: *input.choose(&[Spill::Refuse, Spill::NextLarger, Spill::System])?,
        })
    }
}

fn group(input: &mut Unstructured) -> Result<Vec<Want>> {
    (0..input.int_in_range(0..=4)?).map(|_| Want::arbitrary(input)).collect()
}

/// Every other one is no bound.
fn limit(input: &mut Unstructured) -> Result<Limit> {
    let mut bound = |most: u64, unit: u64| {
        let n = input.int_in_range(0..=2 * most - 1)?;
        Ok(if n < most { n * unit } else { u64::MAX })
    };
    Ok(Limit { slots: bound(16, 1)?, bytes: bound(64, 64)? })
}

/// In their order, mostly.
fn marks(input: &mut Unstructured) -> Result<Watermarks> {
    let mut marks = [input.int_in_range(0..=3)?, input.int_in_range(0..=3)?, input.int_in_range(0..=3)?];
    if input.int_in_range(0..=7)? > 0 {
        marks.sort_unstable();
    }
    Ok(Watermarks { min: marks[0], low: marks[1], high: marks[2] })
}

/// As many as the input gives.
#[derive(Debug)]
pub struct Ops(pub Vec<Op>);

impl<'a> Arbitrary<'a> for Ops {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let mut ops = Vec::new();
        while !input.is_empty() {
            ops.push(Op::arbitrary(input)?);
        }
        Ok(Ops(ops))
    }
}
