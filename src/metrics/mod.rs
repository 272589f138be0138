//! Metrics as Prometheus reads them: what they are called, and how a page of them is written.
//!
//! There is no registry that anything has to be put into. What is counted hangs from what it
//! belongs to (a route, an upstream, a backend), and whoever owns it declares a [`Family`] and
//! writes its samples on a [`Page`] when one is asked for. So nothing is looked up by name when
//! something is counted, and what is gone from the configuration is gone from the page.
//!
//! INVARIANT: values of labels come from the configuration, or from a list in the code; never
//! from a request.

mod durations;
mod exemplar;
mod family;
mod manual;
mod page;
mod percentile;

pub use durations::{BOUNDS, Durations, Reading};
pub use exemplar::{Exemplar, Exemplars};
pub use family::{Description, Family, Kind};
pub use manual::manual;
pub use page::{Form, Page, Samples, Value};
pub use percentile::{Buckets, Window, percentile};
