-- Accounts with balances and grants, and principals from the accounts file. Amounts are micro-units: millionths of the
-- unit in which balances are kept.

-- Rule M02: prepaid.
ALTER TABLE accounts ADD COLUMN balance INTEGER NOT NULL DEFAULT 0 CHECK (balance >= 0);
-- Rule K02: since when the disk service may use the account's keys.
ALTER TABLE accounts ADD COLUMN granted TEXT;

-- Taken from the balance, to be given back if the operation is undone.
ALTER TABLE intents ADD COLUMN charged INTEGER NOT NULL DEFAULT 0 CHECK (charged >= 0);
-- Taken from the balance for these calls.
ALTER TABLE usage ADD COLUMN charged INTEGER NOT NULL DEFAULT 0 CHECK (charged >= 0);

-- Whether the principal comes from the accounts file, which every start reads anew; the owner does not.
ALTER TABLE principals ADD COLUMN listed INTEGER NOT NULL DEFAULT 0 CHECK (listed IN (0, 1));
