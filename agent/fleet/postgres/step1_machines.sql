-- A machine's place in the fleet. Functions that change an owner lock the row of `fleet` first:
-- two of them that cross wait in line and never for each other.

-- Each machine may have a login of its own; no other login speaks for it then.
CREATE FUNCTION wa_agent.speaks_for(me integer, my_epoch bigint) RETURNS boolean LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM wa_agent.machine
        WHERE id = me AND epoch = my_epoch AND role = session_user AND NOT gone);
$$;

CREATE FUNCTION wa_agent.lock_owners() RETURNS boolean LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT halted = '' FROM wa_agent.fleet FOR NO KEY UPDATE;
$$;

-- Counts up what the machines own; the generation that the changed sessions get.
CREATE FUNCTION wa_agent.changed(machines integer[]) RETURNS bigint LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE wa_agent.machine SET changes = changes + 1 WHERE id = ANY (machines);
    SELECT pg_notify('wa_agent', 'changes ' || id) FROM unnest(machines) AS id;
    UPDATE wa_agent.fleet SET generation = generation + 1 RETURNING generation;
$$;

CREATE FUNCTION wa_agent.join_fleet(
    my_name text, my_installation uuid, my_address text, my_capacity integer, my_labels jsonb,
    my_engines text[], my_version text, my_key_fingerprint text, my_place text,
    my_ttl double precision
) RETURNS TABLE (id integer, epoch bigint, renewals bigint) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE mine wa_agent.machine; fleet_ttl double precision;
BEGIN
    UPDATE wa_agent.fleet f SET ttl = my_ttl WHERE f.ttl = 0;
    SELECT f.ttl INTO fleet_ttl FROM wa_agent.fleet f;
    IF fleet_ttl <> my_ttl THEN
        RAISE EXCEPTION 'the fleet''s machines have ttl = %, this one has %', fleet_ttl, my_ttl
            USING ERRCODE = 'WA008';
    END IF;
    UPDATE wa_agent.fleet f SET key_fingerprint = my_key_fingerprint
        WHERE f.key_fingerprint = '' AND my_key_fingerprint <> '';
    IF EXISTS (SELECT FROM wa_agent.fleet f
            WHERE my_key_fingerprint <> '' AND f.key_fingerprint <> my_key_fingerprint) THEN
        RAISE EXCEPTION 'the fleet has another key' USING ERRCODE = 'WA002';
    END IF;
    IF EXISTS (SELECT FROM wa_agent.machine m WHERE m.installation = my_installation
            AND m.place <> my_place AND NOT m.gone AND m.alive_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'the machine is there twice' USING ERRCODE = 'WA007';
    END IF;
    INSERT INTO wa_agent.machine AS m
        (name, installation, role, place, address, capacity, labels, engines, version)
    VALUES (my_name, my_installation, session_user, my_place, my_address, my_capacity, my_labels,
        my_engines, my_version)
    ON CONFLICT (installation) DO UPDATE SET name = my_name, role = session_user, gone = false,
        place = my_place, address = my_address, capacity = my_capacity, labels = my_labels, engines = my_engines,
        version = my_version
    RETURNING * INTO mine;
    -- What an earlier process of this machine began, this one cannot tell the end of.
    UPDATE wa_agent.command c SET state = 'ended', outcome = 'unknown'
        WHERE c.machine = mine.id AND c.state = 'begun';
    RETURN QUERY SELECT mine.id, mine.epoch, mine.renewals;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'another machine of the fleet has this name' USING ERRCODE = 'WA001';
END $$;

CREATE FUNCTION wa_agent.in_use_since() RETURNS timestamptz LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO wa_agent.in_use (number) VALUES ('wa_agent.in_use'::regclass) ON CONFLICT DO NOTHING;
    SELECT since FROM wa_agent.in_use WHERE number = 'wa_agent.in_use'::regclass;
$$;

CREATE FUNCTION wa_agent.renew(
    me integer, my_epoch bigint, my_renewals bigint, my_rivals integer[], my_generation bigint,
    ttl double precision, my_place text
) RETURNS TABLE (
    accepted boolean, epoch bigint, ids integer[], numbers bigint[], alive integer[],
    generation bigint, changes bigint, settled boolean, halted text, commands boolean,
    server text
) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    fleet wa_agent.fleet;
    mine wa_agent.machine;
    lost text := '';
BEGIN
    SELECT * INTO mine FROM wa_agent.machine WHERE id = me FOR NO KEY UPDATE;
    IF mine.gone OR mine.role <> session_user OR mine.place <> my_place THEN
        RETURN;
    END IF;
    SELECT * INTO fleet FROM wa_agent.fleet;
    IF mine.id IS NULL OR mine.renewals < my_renewals THEN
        lost := 'the renewals of a machine were lost';
    ELSIF mine.epoch < my_epoch THEN
        lost := 'the epoch of a machine was lost';
    ELSIF fleet.generation < my_generation THEN
        lost := 'a change of owners was lost';
    END IF;
    IF lost <> '' AND fleet.halted = '' THEN
        UPDATE wa_agent.fleet SET halted = lost RETURNING * INTO fleet;
    END IF;
    accepted := mine.epoch = my_epoch OR (fleet.halted <> '' AND mine.id IS NOT NULL);
    IF accepted THEN
        -- An epoch that was lost counts: the machine and its rivals have heard of it.
        UPDATE wa_agent.machine SET renewals = greatest(renewals, my_renewals) + 1,
            epoch = greatest(epoch, my_epoch),
            rivals = my_rivals, renewed_at = clock_timestamp(),
            alive_until = clock_timestamp() + make_interval(secs => ttl)
        WHERE id = me;
    END IF;
    SELECT array_agg(id), array_agg(renewals),
        coalesce(array_agg(id) FILTER (WHERE alive_until > clock_timestamp() AND id <> me), '{}')
        INTO ids, numbers, alive FROM wa_agent.machine WHERE NOT gone;
    epoch := CASE WHEN accepted THEN greatest(mine.epoch, my_epoch) ELSE mine.epoch END;
    changes := mine.changes;
    generation := fleet.generation;
    halted := fleet.halted;
    settled := clock_timestamp() > make_interval(secs => ttl)
        + greatest(pg_postmaster_start_time(), fleet.accepted_at, wa_agent.in_use_since());
    commands := EXISTS (SELECT FROM wa_agent.command c JOIN wa_agent.session s ON s.id = c.session
        WHERE c.state = 'waiting' AND s.machine = me);
    server := concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()),
        extract(epoch FROM fleet.accepted_at), extract(epoch FROM wa_agent.in_use_since()));
    RETURN NEXT;
END $$;

CREATE FUNCTION wa_agent.set_drained(machine_name text, is_drained boolean) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE wa_agent.machine SET drained = is_drained WHERE name = machine_name AND NOT gone;
    RETURN FOUND;
END $$;

CREATE FUNCTION wa_agent.set_capacity(me integer, my_epoch bigint, sessions integer) RETURNS void
LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE wa_agent.machine SET capacity = sessions
        WHERE id = me AND wa_agent.speaks_for(me, my_epoch);
$$;

-- An operator says that the machine is dead: from now on `me` counts as one of its rivals, and a
-- machine that owns nothing goes off the list. It joins again if it lives.
CREATE FUNCTION wa_agent.forget(me integer, my_epoch bigint, machine_id integer) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wa_agent.lock_owners();
    IF NOT wa_agent.speaks_for(me, my_epoch) THEN
        RETURN;
    END IF;
    UPDATE wa_agent.machine SET rivals = rivals || me WHERE id = machine_id AND me <> ALL (rivals);
    UPDATE wa_agent.machine m SET gone = true, epoch = epoch + 1
        WHERE id = machine_id AND NOT gone AND alive_until < clock_timestamp()
        AND NOT EXISTS (SELECT FROM wa_agent.session s WHERE s.machine = m.id);
END $$;

-- Takes the machine and its sessions out of the fleet. A session that it does not name was handed
-- to it a moment ago, and its files may be elsewhere: nothing is removed then.
CREATE FUNCTION wa_agent.leave_fleet(me integer, my_epoch bigint, known text[]) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE now_at bigint;
BEGIN
    IF NOT wa_agent.lock_owners() OR NOT wa_agent.speaks_for(me, my_epoch) OR EXISTS (
            SELECT FROM wa_agent.session WHERE machine = me AND id <> ALL (known)) THEN
        RETURN false;
    END IF;
    now_at := wa_agent.changed(ARRAY[me]);
    PERFORM wa_agent.remove_session(id, now_at) FROM wa_agent.session WHERE machine = me;
    UPDATE wa_agent.machine SET gone = true, epoch = epoch + 1, alive_until = '-infinity'
        WHERE id = me;
    RETURN true;
END $$;

CREATE FUNCTION wa_agent.accept_loss() RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE wa_agent.fleet SET halted = '', generation = generation + 1,
        accepted_at = clock_timestamp();
$$;
