//! The list of a router's nodes: never changed, but replaced as a whole, so that who reads it neither waits nor sees half a change.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use super::shape::Shape;

/// Some nodes, and how they are found.
#[derive(Default)]
pub(super) struct Nodes {
    pub(super) entries: Box<[Entry]>,
    /// Each once.
    pub(super) shapes: Box<[Arc<Shape>]>,
    names: HashMap<Box<str>, u32>,
    /// The places of the nodes with that label.
    labels: HashMap<Box<str>, Box<[u32]>>,
}

/// A node of the list.
pub(super) struct Entry {
    pub(super) node: Node,
    /// Its shape's place.
    pub(super) shape: u32,
}

impl Nodes {
    /// These; of two with one name the last.
    pub(super) fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut names: HashMap<Box<str>, u32> = HashMap::new();
        let mut labels: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        let mut numbers: HashMap<Arc<Shape>, u32> = HashMap::new();
        let (mut shapes, mut entries) = (Vec::new(), Vec::<Entry>::new());
        for node in nodes {
            let shape = *numbers.entry(Arc::clone(&node.inner.shape)).or_insert_with_key(|shape| {
                shapes.push(Arc::clone(shape));
                shapes.len() as u32 - 1
            });
            let entry = Entry { shape, node };
            match names.get(entry.node.name()) {
                Some(&place) => entries[place as usize] = entry,
                None => {
                    names.insert(entry.node.name().into(), entries.len() as u32);
                    entries.push(entry);
                }
            }
        }
        for (entry, place) in entries.iter().zip(0..) {
            for label in entry.node.labels() {
                let places = labels.entry(label.into()).or_default();
                // Once, however often the node has it.
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
        let labels = labels.into_iter().map(|(label, places)| (label, places.into())).collect();
        Nodes { entries: entries.into(), shapes: shapes.into(), names, labels }
    }

    pub(super) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(super) fn node(&self, place: u32) -> &Node {
        &self.entries[place as usize].node
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.entries.iter().map(|entry| &entry.node)
    }

    /// The place of the node of that name.
    pub(super) fn named(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// The places of the nodes with that label.
    pub(super) fn labelled(&self, label: &str) -> &[u32] {
        self.labels.get(label).map_or(&[], |places| places)
    }
}
