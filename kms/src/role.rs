//! Roles, and which of them each call of the API needs.

/// What a principal may do. Several roles may be given together; the user that ran `init` has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Manages disks, instances, snapshots and accounts, but no keys.
    Admin,
    /// Manages keys, and the activation and grant that they need.
    SecurityAdministrator,
    /// Manages disks, instances and snapshots.
    Operator,
    /// Reads everything, the audit log too.
    Auditor,
}

use Role::{Admin, Auditor, Operator, SecurityAdministrator};

/// Every role.
pub(crate) const ALL: [Role; 4] = [Admin, SecurityAdministrator, Operator, Auditor];

/// Who may make a call: what it is about (the first word of its path), who may read it, who may change it.
const CALLS: &[(&str, &[Role], &[Role])] = &[
    ("kms", &ALL, &[SecurityAdministrator]),
    ("keys", &ALL, &[SecurityAdministrator]),
    ("accounts", &[Admin, Auditor], &[Admin]),
    ("audit", &[Auditor], &[Auditor]),
];

/// Who may make the calls that are not in [`CALLS`]: those on disks and what belongs to them.
const OTHERS: (&[Role], &[Role]) = (&ALL, &[Operator, Admin]);

impl Role {
    /// As the accounts file and messages have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Admin => "admin",
            SecurityAdministrator => "security-administrator",
            Operator => "operator",
            Auditor => "auditor",
        }
    }

    /// The role of this name.
    pub(crate) fn named(name: &str) -> Option<Role> {
        ALL.into_iter().find(|role| role.name() == name)
    }
}

/// The roles of which a caller needs one, for a call on a path such as `/v1/disks/{disk}`.
pub(crate) fn needed(reads: bool, route: &str) -> &'static [Role] {
    if route == "/v1/audit/archive" {
        return &[SecurityAdministrator];
    }
    let subject = route.split('/').nth(2).unwrap_or_default();
    let row = CALLS.iter().find(|row| row.0 == subject);
    let (read, change) = row.map_or(OTHERS, |row| (row.1, row.2));
    if reads { read } else { change }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_the_names_of_the_catalogue() {
        for role in ALL {
            assert_eq!(Role::named(role.name()), Some(role));
        }
        assert_eq!(Role::named("root"), None);
    }

    #[test]
    fn each_call_needs_a_role() {
        let cases: [(bool, &str, &[Role]); 12] = [
            (false, "/v1/kms/activate", &[SecurityAdministrator]),
            (false, "/v1/kms/grant", &[SecurityAdministrator]),
            (false, "/v1/keys/{key}", &[SecurityAdministrator]),
            (true, "/v1/keys/{key}", &ALL),
            (false, "/v1/disks", &[Operator, Admin]),
            (false, "/v1/attachments", &[Operator, Admin]),
            (true, "/v1/usage", &ALL),
            (true, "/v1/audit", &[Auditor]),
            (true, "/v1/audit/archive", &[SecurityAdministrator]),
            (false, "/v1/audit/archive", &[SecurityAdministrator]),
            (true, "/v1/accounts", &[Admin, Auditor]),
            (false, "/v1/accounts/{account}/credit", &[Admin]),
        ];
        for (reads, route, expected) in cases {
            assert_eq!(needed(reads, route), expected, "{route}");
        }
    }
}
