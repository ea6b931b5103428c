//! One file for each scenario.

mod accessibility;
mod bad_input;
mod browser;
mod clients;
mod cluster;
mod commands;
mod corpora;
mod crash;
mod disk;
mod fuzz;
mod large;
mod mail_in;
mod mailboxes;
mod milters;
mod name_servers;
mod operations;
mod postgres;
mod quota;
mod service;
mod shared_log;
mod snapshot;
mod storage_copy;
mod submission;
mod undelete;
mod web;
mod webmail;
