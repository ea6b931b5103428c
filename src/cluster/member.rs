//! One node as the others see it.

use std::time::Duration;

use base::UtcMillis;
use config::Role;

/// A node that said nothing for so long is down.
pub(crate) const DOWN_AFTER: Duration = Duration::from_secs(5);

/// What an administrator wants of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Serve,
    /// No new sessions: those that are there go on.
    Drain,
}

impl Wish {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Drain => "drain",
        }
    }

    /// What a newer node wrote and this one does not know is no wish for sessions.
    pub(crate) fn from_name(name: &str) -> Self {
        if name == "serve" { Self::Serve } else { Self::Drain }
    }
}

/// What a node is for the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    Up,
    Draining,
    /// Stopped, or not heard of for five seconds.
    Down,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// `node.name`: no two nodes have the same.
    pub name: String,
    /// `host:port` where other nodes reach it, if they do.
    pub address: Option<String>,
    pub roles: Vec<Role>,
    /// Of the program.
    pub version: String,
    pub started_at: UtcMillis,
    /// Since it was last heard of, by the server's clock; `None`: it was stopped.
    pub silent: Option<Duration>,
    pub wish: Wish,
    /// Open sessions when it was last heard of.
    pub sessions: u64,
    /// What it said then of its parts: JSON of its own release. `None` of one that does not run.
    pub health: Option<String>,
}

impl Member {
    pub fn state(&self) -> State {
        match (self.silent, self.wish) {
            (Some(silent), Wish::Serve) if silent < DOWN_AFTER => State::Up,
            (Some(silent), Wish::Drain) if silent < DOWN_AFTER => State::Draining,
            _ => State::Down,
        }
    }

    /// It said nothing for too long, and not that it stops.
    pub fn is_silent(&self) -> bool {
        self.silent.is_some_and(|silent| silent >= DOWN_AFTER)
    }

    /// As the configuration has them.
    pub fn role_names(&self) -> Vec<&'static str> {
        self.roles.iter().map(|role| role_name(*role)).collect()
    }

    /// True if accounts may have it as their node.
    pub(crate) fn takes_accounts(&self) -> bool {
        self.state() == State::Up && self.roles.contains(&Role::Store)
    }
}

pub(crate) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Filter => "filter",
        Role::Store => "store",
        Role::Web => "web",
    }
}

/// Roles that only a newer release has are not ours to use.
pub(crate) fn roles_of(names: &str) -> Vec<Role> {
    let known = names.split(' ').filter_map(|name| match name {
        "filter" => Some(Role::Filter),
        "store" => Some(Role::Store),
        "web" => Some(Role::Web),
        _ => None,
    });
    known.collect()
}
