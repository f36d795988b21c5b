//! Webhooks, registered and delivered, lost and found.
