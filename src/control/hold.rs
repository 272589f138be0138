//! Holding the configuration still for an upgrade: what a successor is told must stay true.
//!
//! Changes are refused meanwhile, not put off: if the upgrade succeeds they would be made in a
//! process that is about to leave, and told to somebody who means the other one.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use log::error;

use crate::control::{Control, probation::Standing};

/// Nothing changes for as long as it lives.
pub struct Hold {
    control: Option<Arc<Control>>,
}

/// Why the configuration cannot be held still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// An upgrade holds it already.
    #[error("an upgrade is under way already")]
    Upgrading,
    /// It may go back by itself, which a successor would know nothing of.
    #[error("v{0} is on probation; wait for its end, or go back")]
    OnProbation(u64),
}

impl Control {
    /// Holds the configuration still; a change that is being made is waited for.
    ///
    /// # Errors
    /// If somebody holds it already, or the configuration in force is on probation.
    pub async fn hold(self: &Arc<Self>) -> Result<Hold, Busy> {
        if self.held.swap(true, SeqCst) {
            return Err(Busy::Upgrading);
        }
        let hold = Hold { control: Some(self.clone()) };
        drop(self.keepers.lock().await);
        match self.probation().as_ref().map(Standing::of) {
            Some(Standing::Running { version }) => Err(Busy::OnProbation(version)),
            _ => Ok(hold),
        }
    }

    /// Holds the configuration still before it serves; nothing can be in the way.
    pub fn hold_from_the_start(self: &Arc<Self>) -> Hold {
        if self.held.swap(true, SeqCst) {
            error!("upgrade: the configuration was held before the process served");
        }
        Hold { control: Some(self.clone()) }
    }

    /// Whether nothing may change now.
    pub fn is_held(&self) -> bool {
        self.held.load(SeqCst)
    }
}

impl Hold {
    /// Never lets go: the process is about to leave.
    pub fn keep(mut self) {
        self.control = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(control) = &self.control {
            control.held.store(false, SeqCst);
        }
    }
}
