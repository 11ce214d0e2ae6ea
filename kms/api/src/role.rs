//! Roles.

/// What a principal may do. Several roles may be given together; the user that ran `init` has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
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

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Admin, SecurityAdministrator, Operator, Auditor];

    /// As the accounts file and messages have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Admin => "admin",
            SecurityAdministrator => "security-administrator",
            Operator => "operator",
            Auditor => "auditor",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_the_names_of_the_catalogue() {
        for role in Role::ALL {
            assert_eq!(Role::named(role.name()), Some(role));
        }
        assert_eq!(Role::named("root"), None);
    }
}
