//! The daemon's tests, with a backend that is made for faults.
//!
//! One program, since each one links the whole daemon anew, which takes longer than to run its tests.

mod accounts;
mod audit;
mod audit_details;
mod audit_sinks;
mod backups;
mod bad_input;
mod bin;
mod common;
mod copies;
mod degraded;
mod descriptors;
mod dialling;
mod groups;
mod images;
mod instance_set;
mod instances;
mod keys;
mod kinds;
mod layered;
mod layered_rules;
mod machine;
mod matching;
mod metering;
mod named_sockets;
mod on_full;
mod once;
mod passed;
mod paths;
mod plug;
mod profiles;
mod root_key;
mod sandbox;
mod shared;
mod shares;
mod startup;
mod store_lock;
mod store_states;
mod stores;
mod supervision;
mod system_disks;
mod upgrade;
