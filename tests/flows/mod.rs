//! One file for each scenario.

mod bad_input;
mod clients;
mod commands;
mod corpora;
mod crash;
mod mail_in;
mod mailboxes;
mod operations;
mod service;
mod submission;
mod web;
