//! Makes parcels of frames, and has them brought to their receiver.

use std::sync::atomic::AtomicBool;

use prost::Message;
use tokio::time::Instant;

use crate::{
    observe::access_log::{
        frame::frames,
        otlp::record::record,
        progress::{Progress, State},
    },
    otlp::{
        config::Receiver,
        courier::{Courier, Fate, Parcel, Signal},
        proto::{Logs, Resource, ResourceLogs, ScopeLogs},
        resource::{resource, scope},
    },
};

/// The most that travels together: records, and bytes as they were packed. Receivers of gRPC take
/// 4 MiB.
const RECORDS_MAX: usize = 2_048;
const BYTES_MAX: usize = 1024 * 1024;
/// So much is sent before its time.
const ENOUGH: usize = 256 * 1024;

/// Sends records to a receiver.
pub(in crate::observe::access_log) struct Exporter {
    courier: Courier,
    every: std::time::Duration,
    resource: Resource,
    sent_at: Instant,
    /// What is on its way: so many bytes of frames.
    parcel: Option<(usize, Parcel)>,
}

impl Exporter {
    /// An exporter that is not connected yet.
    pub(in crate::observe::access_log) fn new(receiver: &Receiver) -> Self {
        Self {
            every: receiver.every,
            resource: resource(&receiver.service_name, &receiver.resource),
            courier: Courier::new(receiver.clone(), Signal::Logs),
            sent_at: Instant::now(),
            parcel: None,
        }
    }

    /// Whether it is time to send, where so many bytes wait.
    pub(in crate::observe::access_log) fn is_due(&self, held: usize) -> bool {
        self.parcel.is_some() || ENOUGH <= held || self.every <= self.sent_at.elapsed()
    }

    /// Sends frames, as far as the receiver takes them.
    pub(in crate::observe::access_log) fn send(
        &mut self,
        bytes: &[u8],
        finish: &AtomicBool,
    ) -> Progress {
        self.sent_at = Instant::now();
        let (size, parcel) = self.parcel.take().unwrap_or_else(|| self.pack(bytes));
        match self.courier.deliver(&parcel, finish) {
            Fate::Gone(lost) => Progress { done: size, lost, state: State::Good },
            Fate::Waits => {
                self.parcel = Some((size, parcel));
                Progress { done: 0, lost: 0, state: State::Waiting }
            }
        }
    }

    fn pack(&self, bytes: &[u8]) -> (usize, Parcel) {
        let (mut records, mut size) = (Vec::new(), 0);
        for frame in frames(bytes) {
            size += frame.size();
            records.push(record(&frame));
            if RECORDS_MAX <= records.len() || BYTES_MAX <= size {
                break;
            }
        }
        let count = records.len() as u64;
        let scopes = vec![ScopeLogs { scope: Some(scope()), records }];
        let resource = Some(self.resource.clone());
        let message = Logs { resources: vec![ResourceLogs { resource, scopes }] };
        (size, self.courier.pack(&message.encode_to_vec(), count))
    }
}
