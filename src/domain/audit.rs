//! Words of the audit log: what was done, by which way in, and how often a repeated refusal is written down.

use super::text_enum::text_enum;

text_enum!(
    /// An act, or the attempt of one. Callers filter by these words, so one is never renamed.
    Action {
        /// A community's limits or switches were changed.
        CommunityChange = "community.change",
        /// A community's settings were looked at.
        CommunityShow = "community.show",
        /// A user's allowance was set.
        QuotaSet = "quota.set",
        /// A user's allowance was looked at.
        QuotaShow = "quota.show",
        /// What a role may was defined.
        RoleDefine = "role.define",
        /// A community's own definition of a role was dropped.
        RoleDrop = "role.drop",
        /// What a role may was looked at.
        RoleShow = "role.show",
        /// A role was given to a user.
        RoleGrant = "role.grant",
        /// A role was taken from a user.
        RoleRevoke = "role.revoke",
        /// A member was removed.
        MemberRemove = "member.remove",
        /// Somebody else's buffer was started.
        SessionStart = "session.start",
        /// Somebody else's buffer was stopped.
        SessionStop = "session.stop",
        /// Every buffer was told to stop; each has a line of its own besides.
        SessionStopAll = "session.stop_all",
        /// Somebody else's buffer was thrown away.
        SessionDiscard = "session.discard",
        /// Sessions were listed.
        SessionList = "session.list",
        /// Somebody else's clip was deleted.
        ClipDelete = "clip.delete",
        /// Clips were compared with their files and put right.
        ClipVerify = "clip.verify",
        /// Clips were listed.
        ClipList = "clip.list",
        /// A failed job was tried again.
        JobRetry = "job.retry",
        /// Jobs were listed.
        JobList = "job.list",
        /// A scheduled job was run by hand.
        MaintenanceRun = "maintenance.run",
        /// The scheduled jobs were listed.
        MaintenanceList = "maintenance.list",
        /// The audit log was read.
        AuditList = "audit.list",
        /// What users and communities take was looked at.
        UsageShow = "usage.show",
        /// The health of all parts was looked at.
        HealthShow = "health.show",
        /// A copy of the database took its place: what happened since the copy is not known any more.
        DatabaseRestore = "database.restore",
        /// What is kept of a user was handed out.
        UserExport = "user.export",
        /// Deliveries of events were begun anew.
        EventRedeliver = "event.redeliver",
        /// Deliveries of events were listed.
        EventList = "event.list",
        /// Erasing a user began.
        UserErase = "user.erase",
        /// Erasing a user ended: nothing of him was found any more.
        UserErased = "user.erased",
        /// Something else under the administrators' address.
        AdminOther = "admin.other",
    }
);

text_enum!(
    /// What came of it.
    Outcome {
        /// It was done; the line stands or falls with the act.
        Done = "done",
        /// It was refused.
        Refused = "refused",
    }
);

text_enum!(
    /// By which way in.
    Door {
        /// With a token.
        User = "user",
        /// Through the control socket of a running service.
        ControlSocket = "control_socket",
        /// By a command that worked on the database itself.
        CommandLine = "command_line",
    }
);

/// Refusals in one window of time, of everybody, that are written before only doublings are.
pub const MOST_REFUSALS: u64 = 200;

/// Whether the refusal that is `own`th of its kind and `all`th of all in the window is written down: the 1st, 2nd,
/// 4th, 8th, … of its kind; beyond [`MOST_REFUSALS`] only if it is such a one among all of them, too.
pub fn is_written(own: u64, all: u64) -> bool {
    own.is_power_of_two() && (all <= MOST_REFUSALS || all.is_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_leaves_few_lines() {
        let one = (1..=1_000_000).filter(|n| is_written(*n, *n)).count();
        assert_eq!(one, 20);
        let each_another = (1..=1_000_000).filter(|n| is_written(1, *n)).count();
        assert_eq!(each_another, 200 + 12);
        assert!(is_written(1, 1) && is_written(2, 2) && !is_written(3, 3));
    }
}
