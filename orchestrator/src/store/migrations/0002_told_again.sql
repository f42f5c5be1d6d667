-- A round names records of earlier ones instead of telling them again: the newest of a kind is looked for at each round.
CREATE INDEX records_by_kind ON records (device, kind, seq);
DROP INDEX rounds;
