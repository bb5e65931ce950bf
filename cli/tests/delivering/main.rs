//! Real builds by the real command: how what is asked for by flags and by files beside the plan comes out.

#![cfg(target_os = "linux")]

mod bases;
mod cluster;
mod code;
mod conda;
mod consumers;
mod contract;
mod daemon;
mod docker;
mod doctor;
mod engine;
mod external;
mod flytekit;
mod forms;
mod kaniko;
mod logins;
mod names;
mod place;
mod platforms;
mod pythons;
mod registry;
mod same;
mod service;
mod sources;
mod ssh;
mod store;
mod troubles;
