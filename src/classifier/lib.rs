//! The statistical classifier: what was learned, and what it says of a message.
//!
//! Floor: 2. It must never know what a message looks like: it sees numbers of features, each once.
//! Main types: [`Classifier`], which learns; [`Current`], the weights for judging; [`Lesson`], [`Owner`].
//! Surprise: a weight is a whole number and a lesson adds one number to the weights of its features. So lessons can be
//! applied in any order, by every node for itself, and taking one back leaves exactly what was there without it.

mod classifier;
mod copy;
mod lesson;
mod model;
mod numbers;
mod postgres;
mod sqlite;
mod tables;
#[cfg(test)]
mod tests;

pub use classifier::{Classifier, Counts};
pub use lesson::{Class, Key, Learned, Lesson, Owner};
pub use model::{Current, Opinion, Weights};
