//! Retries: whether a request that failed at one backend is tried at another, and when.
//!
//! [`policy`] says what is worth another try, [`budget`] how much of that an upstream bears,
//! [`pause`] how long to wait before it. All of them are pure.

pub mod budget;
pub mod config;
pub mod pause;
pub mod policy;

pub use budget::RetryBudget;
pub use policy::Policy;
