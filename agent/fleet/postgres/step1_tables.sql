-- The fleet's tables. An agent's role reads them and writes nothing except through the functions.
CREATE SCHEMA wa_agent;

CREATE TABLE wa_agent.fleet (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL DEFAULT 0,
    compatible_from integer NOT NULL DEFAULT 0,
    generation bigint NOT NULL DEFAULT 0,
    halted text NOT NULL DEFAULT '',
    accepted_at timestamptz NOT NULL DEFAULT '-infinity',
    key_fingerprint text NOT NULL DEFAULT '',
    ttl double precision NOT NULL DEFAULT 0  -- of all machines; the first one to join sets it
);
INSERT INTO wa_agent.fleet DEFAULT VALUES;

-- Since when these records are in use. A server that begins from older ones, as a standby that was
-- promoted or one that crashed, finds an unlogged table empty; tables from a dump have other numbers.
CREATE UNLOGGED TABLE wa_agent.in_use (
    number oid PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE wa_agent.machine (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    installation uuid NOT NULL UNIQUE,  -- not readable by agents: who knows it is this machine
    role name NOT NULL,  -- the login that speaks for this machine
    place text NOT NULL,  -- of which boot and folder its process is: a copy of the machine differs
    gone boolean NOT NULL DEFAULT false,  -- it left, or was forgotten; it may join again
    epoch bigint NOT NULL DEFAULT 0,
    renewals bigint NOT NULL DEFAULT 0,
    rivals integer[] NOT NULL DEFAULT '{}',
    renewed_at timestamptz,
    alive_until timestamptz NOT NULL DEFAULT '-infinity',
    changes bigint NOT NULL DEFAULT 0,
    address text NOT NULL,
    capacity integer NOT NULL,
    labels jsonb NOT NULL,
    engines text[] NOT NULL,
    drained boolean NOT NULL DEFAULT false,
    version text NOT NULL
) WITH (fillfactor = 50);  -- renewals change a row in place
CREATE UNIQUE INDEX machine_by_name ON wa_agent.machine (name) WHERE NOT gone;

CREATE TABLE wa_agent.session (
    id text PRIMARY KEY,
    machine integer NOT NULL REFERENCES wa_agent.machine,
    epoch bigint NOT NULL DEFAULT 0,
    generation bigint NOT NULL,  -- the fleet's one at the last change of this row
    engine text NOT NULL,
    wanted text NOT NULL,
    failover text NOT NULL CHECK (failover IN ('wait', 'newest')),
    labels jsonb NOT NULL,
    only_on text NOT NULL,
    settings jsonb NOT NULL,
    why text NOT NULL DEFAULT 'created',
    moved_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX session_by_machine ON wa_agent.session (machine);
CREATE INDEX session_by_generation ON wa_agent.session (generation);

CREATE TABLE wa_agent.deleted_session (id text PRIMARY KEY, generation bigint NOT NULL);
CREATE INDEX deleted_session_by_generation ON wa_agent.deleted_session (generation);

CREATE TABLE wa_agent.copy (
    session text PRIMARY KEY REFERENCES wa_agent.session ON DELETE CASCADE,
    epoch bigint NOT NULL,
    written_at timestamptz NOT NULL,
    packed bytea NOT NULL
);

CREATE TABLE wa_agent.view (
    session text PRIMARY KEY REFERENCES wa_agent.session ON DELETE CASCADE,
    machine integer NOT NULL,
    published_at timestamptz NOT NULL,
    view jsonb NOT NULL
);

CREATE TABLE wa_agent.command (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE,
    session text NOT NULL,
    verb text NOT NULL,
    arguments jsonb NOT NULL,
    idempotency_key text UNIQUE,
    asked_by text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT now(),
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'begun', 'ended')),
    machine integer,  -- the one that took it
    epoch bigint,
    outcome text NOT NULL DEFAULT '',
    answer jsonb
);
CREATE INDEX command_waiting ON wa_agent.command (session) WHERE state = 'waiting';
CREATE INDEX command_begun ON wa_agent.command (machine) WHERE state = 'begun';
CREATE INDEX command_by_age ON wa_agent.command (asked_at);

-- One whose machine is away counts as unknown: it may have been carried out.
CREATE VIEW wa_agent.known_commands AS
    SELECT c.number, c.id, c.session, c.verb, c.arguments, c.idempotency_key, c.asked_by,
        c.asked_at, c.machine, c.answer,
        CASE WHEN lost THEN 'ended' ELSE c.state END AS state,
        CASE WHEN lost THEN 'unknown' ELSE c.outcome END AS outcome
    FROM wa_agent.command c LEFT JOIN wa_agent.machine m ON m.id = c.machine,
        LATERAL (SELECT c.state = 'begun'
            AND (m.epoch <> c.epoch OR m.alive_until < clock_timestamp()) AS lost) AS its;
