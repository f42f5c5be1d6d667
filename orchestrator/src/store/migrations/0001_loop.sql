-- Times are milliseconds since the Unix epoch, UTC. Digests are 64 hexadecimal digits. JSON is the protocol's form.

CREATE TABLE tokens (
    secret TEXT PRIMARY KEY, -- SHA-256 of the secret: the store can't enrol anybody
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER
) STRICT;

CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    uplink_key TEXT NOT NULL UNIQUE,
    result_key TEXT NOT NULL UNIQUE,
    epoch TEXT NOT NULL,
    agent TEXT NOT NULL,
    enrolled_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    isolation TEXT NOT NULL,
    trust_version INTEGER NOT NULL,
    takes_changes INTEGER NOT NULL,
    through INTEGER NOT NULL DEFAULT 0,
    round_waits INTEGER NOT NULL DEFAULT 0,
    record_count INTEGER NOT NULL DEFAULT 0,
    record_bytes INTEGER NOT NULL DEFAULT 0,
    verdict TEXT
) STRICT;

-- Without the address that a device dialled from: where it is stands in no record.
CREATE TABLE connections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL REFERENCES devices (id),
    opened_at INTEGER NOT NULL
) STRICT;

CREATE TABLE records (
    device TEXT NOT NULL REFERENCES devices (id),
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (device, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX rounds ON records (device, seq) WHERE kind = 'round';
-- Counting rows of this size at every round would cost more than the round.
CREATE TRIGGER records_are_weighed AFTER INSERT ON records
BEGIN
    UPDATE devices SET record_count = record_count + 1, record_bytes = record_bytes + octet_length(NEW.record)
    WHERE id = NEW.device;
END;
CREATE TRIGGER forgotten_records_weigh_nothing AFTER DELETE ON records
BEGIN
    UPDATE devices SET record_count = record_count - 1, record_bytes = record_bytes - octet_length(OLD.record)
    WHERE id = OLD.device;
END;

CREATE TABLE cases (
    id TEXT PRIMARY KEY,
    device TEXT NOT NULL REFERENCES devices (id),
    origin TEXT NOT NULL,
    cause TEXT NOT NULL,
    component TEXT NOT NULL,
    state TEXT NOT NULL,
    finding TEXT,
    note TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    closed_at INTEGER,
    settled_on_device_at INTEGER,
    absent INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX one_open_case ON cases (device, cause, component) WHERE closed_at IS NULL AND origin = 'expert';
CREATE INDEX cases_by_time ON cases (device, opened_at);

CREATE TABLE proposals (
    id TEXT PRIMARY KEY,
    case_id TEXT NOT NULL REFERENCES cases (id),
    device TEXT NOT NULL REFERENCES devices (id),
    correlation_id TEXT NOT NULL,
    state TEXT NOT NULL,
    proposal TEXT NOT NULL,
    evidence TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    lease_until INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    effect_envelope TEXT,
    note TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX proposals_by_device ON proposals (device, state);

CREATE TABLE rehearsals (
    digest TEXT PRIMARY KEY,
    proposal TEXT NOT NULL REFERENCES proposals (id),
    sent_at INTEGER NOT NULL
) STRICT;

CREATE TABLE approvals (
    id TEXT PRIMARY KEY,
    proposal TEXT NOT NULL UNIQUE REFERENCES proposals (id),
    case_id TEXT NOT NULL REFERENCES cases (id),
    device TEXT NOT NULL REFERENCES devices (id),
    state TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    envelope TEXT NOT NULL, -- the payload as it was composed, with the signatures so far
    effect TEXT NOT NULL,
    risk TEXT NOT NULL,
    needed INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    decided_at INTEGER,
    decided_by TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE deliveries (
    digest TEXT PRIMARY KEY,
    approval TEXT NOT NULL REFERENCES approvals (id),
    case_id TEXT NOT NULL REFERENCES cases (id),
    device TEXT NOT NULL REFERENCES devices (id),
    state TEXT NOT NULL,
    package TEXT NOT NULL,
    statement TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    blocks_until INTEGER NOT NULL,
    lease_until INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    first_connection INTEGER,
    change_id TEXT
) STRICT;
CREATE INDEX deliveries_by_device ON deliveries (device, state);

CREATE TABLE outcomes (
    device TEXT NOT NULL REFERENCES devices (id),
    digest TEXT NOT NULL, -- of the outcome's payload
    package TEXT,
    case_id TEXT REFERENCES cases (id),
    envelope TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (device, digest)
) STRICT;

CREATE TABLE audit (
    n INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    device TEXT,
    case_id TEXT,
    detail TEXT NOT NULL,
    previous TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_case ON audit (case_id, n);
CREATE INDEX audit_by_device ON audit (device, kind, at);
CREATE TRIGGER audit_is_never_altered BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_never_cut BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
