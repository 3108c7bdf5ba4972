//! What was asked for, in order: keys as dense numbers, four bytes a request.

use std::collections::HashMap;

/// The most requests that are read. They take 4 bytes each, and while the optimum is found 20; each different key some 60.
pub const MOST_REQUESTS: u64 = 50_000_000;

/// Requests by key.
#[derive(Debug, Default)]
pub struct Keys {
    requests: Vec<u32>,
    distinct: u32,
    kind: Kind,
}

/// Where keys come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Runs of blocks, as the ARC traces have them.
    #[default]
    Blocks,
    /// A column of a CSV.
    Csv,
    /// Sizes that a program allocated.
    Sizes,
}

impl Kind {
    /// What the keys are, for a person.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Blocks => "blocks",
            Kind::Csv => "keys",
            Kind::Sizes => "sizes of allocations",
        }
    }
}

impl Keys {
    /// All requests, each the number of its key: from 0, in the order in which keys first came.
    pub fn requests(&self) -> &[u32] {
        &self.requests
    }

    /// How many different keys there are.
    pub fn distinct(&self) -> u32 {
        self.distinct
    }

    /// Where they come from.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// Numbers keys as they come.
#[derive(Debug, Default)]
pub struct Builder {
    keys: Keys,
    numbers: HashMap<u64, u32>,
    texts: HashMap<Box<[u8]>, u32>,
}

impl Builder {
    /// For keys of that kind.
    pub fn new(kind: Kind) -> Self {
        Builder { keys: Keys { kind, ..Keys::default() }, ..Builder::default() }
    }

    /// How many requests there are.
    pub fn len(&self) -> u64 {
        self.keys.requests.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.requests.is_empty()
    }

    /// A request for a key that is a number.
    pub fn number(&mut self, key: u64) {
        let next = self.keys.distinct;
        let number = *self.numbers.entry(key).or_insert(next);
        self.push(number);
    }

    /// A request for a key that is a text.
    pub fn text(&mut self, key: &[u8]) {
        let number = match self.texts.get(key) {
            Some(&number) => number,
            None => {
                self.texts.insert(key.into(), self.keys.distinct);
                self.keys.distinct
            }
        };
        self.push(number);
    }

    fn push(&mut self, number: u32) {
        // A new key has the number that comes next.
        self.keys.distinct += u32::from(number == self.keys.distinct);
        self.keys.requests.push(number);
    }

    /// All of them.
    pub fn finish(self) -> Keys {
        self.keys
    }
}
