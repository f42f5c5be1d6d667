//! What each part of the agent gets of the configuration.

use nix::unistd::User;

use super::Config;
use crate::{collect, execute, executor};

impl From<&Config> for collect::Settings {
    fn from(config: &Config) -> Self {
        Self {
            role: config.device.role,
            wan: config.device.wan.clone(),
            expected_up: config.device.expected_up.clone(),
            gateway: config.device.gateway,
            anchors: config.probe.anchors.clone(),
            names: config.probe.names.clone(),
            alternates: config.probe.resolvers.clone(),
            ntp: config.probe.ntp.clone(),
            kernel_clock: config.probe.kernel_clock,
            dot: config.probe.dot.clone(),
            certificates: config.probe.tls.clone(),
            portal: config.probe.portal.clone(),
            state: Some(config.paths.state.clone()),
            door: collect::Door::Executor(config.paths.executor_socket()),
            ..Self::default()
        }
    }
}

impl From<&Config> for executor::Settings {
    fn from(config: &Config) -> Self {
        Self {
            state: config.paths.executor(),
            sanitizer_key: config.paths.sanitizer_key(),
            policy: config.paths.policy.clone(),
            daemon: User::from_name(&config.user)
                .ok()
                .flatten()
                .map(|user| user.uid.as_raw()),
            name: config.probe.names.first().cloned(),
            execute: execute::Settings {
                direct_user: User::from_name(&config.script_user)
                    .ok()
                    .flatten()
                    .map(|user| (user.uid.as_raw(), user.gid.as_raw()))
                    .filter(|(uid, gid)| *uid != 0 && *gid != 0),
                ..execute::Settings::default()
            },
            ..Self::default()
        }
    }
}
