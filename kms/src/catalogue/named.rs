//! Enumerations of which each value has a name: that in the catalogue's column, and mostly that in the API.

/// Values that have names.
pub(crate) trait Named: Copy + 'static {
    /// All values, in the order of their declaration.
    const ALL: &'static [Self];

    /// The value's name.
    fn name(self) -> &'static str;

    /// The value of this name, if there is one.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.name() == name)
    }

    /// All names, for a refusal.
    fn names(between: &str) -> String {
        let names: Vec<_> = Self::ALL.iter().map(|value| value.name()).collect();
        names.join(between)
    }
}

/// Declares such an enumeration, which SQLite stores as the name. What it shows as is the name, too.
macro_rules! named {
    ($(#[$of_all:meta])* $visible:vis enum $Type:ident { $($(#[$of_one:meta])* $Value:ident = $name:literal,)+ }) => {
        $(#[$of_all])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
        $visible enum $Type {
            $($(#[$of_one])* #[sqlx(rename = $name)] $Value,)+
        }

        impl $crate::catalogue::named::Named for $Type {
            const ALL: &'static [Self] = &[$($Type::$Value),+];

            fn name(self) -> &'static str {
                match self {
                    $($Type::$Value => $name,)+
                }
            }
        }

        impl std::fmt::Display for $Type {
            fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str($crate::catalogue::named::Named::name(*self))
            }
        }
    };
}
pub(crate) use named;
