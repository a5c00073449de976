-- The fleet's tables and the functions that change them; each function is one transaction.
-- An agent's role may read the tables and call the functions, and write nothing by itself.
CREATE SCHEMA wa_agent;

CREATE TABLE wa_agent.fleet (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    generation bigint NOT NULL DEFAULT 0,
    halted text NOT NULL DEFAULT ''
);
INSERT INTO wa_agent.fleet (version) VALUES (1);

CREATE TABLE wa_agent.machine (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    installation uuid NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    renewals bigint NOT NULL DEFAULT 0,
    rivals integer[] NOT NULL DEFAULT '{}',
    alive_until timestamptz NOT NULL DEFAULT '-infinity',
    changes bigint NOT NULL DEFAULT 0,
    address text NOT NULL,
    capacity integer NOT NULL,
    labels jsonb NOT NULL,
    engines text[] NOT NULL,
    drained boolean NOT NULL DEFAULT false,
    version text NOT NULL
) WITH (fillfactor = 50);  -- renewals change a row in place

CREATE TABLE wa_agent.session (
    id text PRIMARY KEY,
    machine integer NOT NULL REFERENCES wa_agent.machine,
    epoch bigint NOT NULL DEFAULT 0,
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

CREATE TABLE wa_agent.copy (
    session text PRIMARY KEY REFERENCES wa_agent.session,
    epoch bigint NOT NULL,
    written_at timestamptz NOT NULL,
    packed bytea NOT NULL
);

CREATE FUNCTION wa_agent.join_fleet(
    my_name text, my_installation uuid, my_address text, my_capacity integer, my_labels jsonb,
    my_engines text[], my_version text
) RETURNS TABLE (id integer, epoch bigint, renewals bigint) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE mine wa_agent.machine;
BEGIN
    INSERT INTO wa_agent.machine AS m
        (name, installation, address, capacity, labels, engines, version)
    VALUES (my_name, my_installation, my_address, my_capacity, my_labels, my_engines, my_version)
    ON CONFLICT (name) DO UPDATE SET address = my_address, capacity = my_capacity,
        labels = my_labels, engines = my_engines, version = my_version
        WHERE m.installation = my_installation
    RETURNING * INTO mine;
    IF mine.id IS NULL THEN
        RAISE EXCEPTION 'another machine of the fleet has this name' USING ERRCODE = 'WA001';
    END IF;
    RETURN QUERY SELECT mine.id, mine.epoch, mine.renewals;
END $$;

CREATE FUNCTION wa_agent.renew(
    me integer, my_epoch bigint, my_renewals bigint, my_rivals integer[], my_generation bigint,
    ttl double precision
) RETURNS TABLE (
    accepted boolean, epoch bigint, ids integer[], numbers bigint[], alive integer[],
    generation bigint, changes bigint, settled boolean, halted text
) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    fleet wa_agent.fleet;
    mine wa_agent.machine;
    lost text := '';
BEGIN
    SELECT * INTO mine FROM wa_agent.machine WHERE id = me FOR NO KEY UPDATE;
    SELECT * INTO fleet FROM wa_agent.fleet;
    IF mine.id IS NULL OR mine.renewals < my_renewals THEN
        lost := 'the renewals of a machine were lost';
    ELSIF fleet.generation < my_generation THEN
        lost := 'a change of owners was lost';
    END IF;
    IF lost <> '' AND fleet.halted = '' THEN
        UPDATE wa_agent.fleet SET halted = lost RETURNING * INTO fleet;
    END IF;
    accepted := mine.epoch = my_epoch OR (fleet.halted <> '' AND mine.id IS NOT NULL);
    IF accepted THEN
        UPDATE wa_agent.machine SET renewals = greatest(renewals, my_renewals) + 1,
            rivals = my_rivals,
            alive_until = clock_timestamp() + make_interval(secs => ttl)
        WHERE id = me;
    END IF;
    SELECT array_agg(id), array_agg(renewals),
        coalesce(array_agg(id) FILTER (WHERE alive_until > clock_timestamp() AND id <> me), '{}')
        INTO ids, numbers, alive FROM wa_agent.machine;
    epoch := mine.epoch;
    changes := mine.changes;
    generation := fleet.generation;
    halted := fleet.halted;
    settled := clock_timestamp() > pg_postmaster_start_time() + make_interval(secs => ttl);
    RETURN NEXT;
END $$;

-- Locks both rows, or returns false at once: two takeovers that cross must not wait for each other.
CREATE FUNCTION wa_agent.take_over(
    me integer, my_epoch bigint, peer integer, peer_epoch bigint, peer_renewals bigint,
    sessions text[], targets integer[], reason text
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE locked integer;
BEGIN
    SELECT count(*) INTO locked FROM (
        SELECT FROM wa_agent.machine m
        WHERE (m.id = me AND m.epoch = my_epoch)
            OR (m.id = peer AND m.epoch = peer_epoch AND m.renewals = peer_renewals
                AND me = ANY (m.rivals))
        FOR NO KEY UPDATE SKIP LOCKED) AS rows;
    IF locked < 2 OR (SELECT halted <> '' FROM wa_agent.fleet) THEN
        RETURN false;
    END IF;
    UPDATE wa_agent.machine SET epoch = epoch + 1 WHERE id = peer;
    UPDATE wa_agent.session s SET machine = given.target, epoch = s.epoch + 1, why = reason,
        moved_at = now()
    FROM unnest(sessions, targets) AS given (id, target)
    WHERE s.id = given.id AND s.machine = peer;
    PERFORM wa_agent.changed(peer || targets);
    RETURN true;
END $$;

CREATE FUNCTION wa_agent.changed(machines integer[]) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE wa_agent.fleet SET generation = generation + 1;
    UPDATE wa_agent.machine SET changes = changes + 1 WHERE id = ANY (machines);
$$;

-- Holds only until the owner renews again: a hand-over that arrives late finds another number.
CREATE FUNCTION wa_agent.hand_over(
    me integer, my_epoch bigint, my_renewals bigint, session_id text, target integer, reason text
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM wa_agent.machine WHERE id = me AND epoch = my_epoch AND renewals = my_renewals
        FOR NO KEY UPDATE;
    IF NOT FOUND OR (SELECT halted <> '' FROM wa_agent.fleet) THEN
        RETURN false;
    END IF;
    UPDATE wa_agent.session SET machine = target, epoch = epoch + 1, why = reason, moved_at = now()
        WHERE id = session_id AND machine = me;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM wa_agent.changed(ARRAY[me, target]);
    RETURN true;
END $$;

CREATE FUNCTION wa_agent.create_session(
    session_id text, target integer, session_engine text, session_wanted text,
    session_failover text, session_labels jsonb, session_only_on text, session_settings jsonb
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO wa_agent.session
        (id, machine, engine, wanted, failover, labels, only_on, settings)
    VALUES (session_id, target, session_engine, session_wanted, session_failover, session_labels,
        session_only_on, session_settings)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM wa_agent.changed(ARRAY[target]);
    RETURN true;
END $$;

CREATE FUNCTION wa_agent.store_copy(
    me integer, my_epoch bigint, session_id text, session_epoch bigint, files bytea
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM wa_agent.session s JOIN wa_agent.machine m ON m.id = s.machine
        WHERE s.id = session_id AND s.epoch = session_epoch AND m.id = me AND m.epoch = my_epoch
        FOR SHARE OF s;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO wa_agent.copy AS c VALUES (session_id, session_epoch, now(), files)
        ON CONFLICT (session) DO UPDATE
        SET epoch = excluded.epoch, written_at = excluded.written_at, packed = excluded.packed;
    RETURN true;
END $$;

-- An operator says that the machine is dead: from now on this machine counts as one of its rivals.
CREATE FUNCTION wa_agent.forget(me integer, machine_id integer) RETURNS void
LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE wa_agent.machine SET rivals = rivals || me
        WHERE id = machine_id AND me <> ALL (rivals);
$$;

CREATE FUNCTION wa_agent.accept_loss() RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE wa_agent.fleet SET halted = '', generation = generation + 1;
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA wa_agent FROM PUBLIC;
DO $$ BEGIN
    CREATE ROLE wa_agent_machine NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- another fleet of this server made it
END $$;
GRANT USAGE ON SCHEMA wa_agent TO wa_agent_machine;
GRANT SELECT ON ALL TABLES IN SCHEMA wa_agent TO wa_agent_machine;
GRANT EXECUTE ON FUNCTION wa_agent.join_fleet, wa_agent.renew, wa_agent.take_over,
    wa_agent.hand_over, wa_agent.create_session, wa_agent.store_copy, wa_agent.forget,
    wa_agent.accept_loss TO wa_agent_machine;
