-- Who owns a session: taking over, handing over, and what a session is made of.

CREATE FUNCTION wa_agent.take_over(
    me integer, my_epoch bigint, peer integer, peer_epoch bigint, peer_renewals bigint,
    sessions text[], targets integer[], reason text
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE now_at bigint;
BEGIN
    IF NOT wa_agent.lock_owners() OR NOT wa_agent.speaks_for(me, my_epoch) OR EXISTS (
            SELECT FROM wa_agent.machine WHERE id = ANY (targets) AND gone) THEN
        RETURN false;
    END IF;
    -- A peer that renews at this moment is alive: no waiting for its row.
    PERFORM FROM wa_agent.machine WHERE id = peer AND epoch = peer_epoch
        AND renewals = peer_renewals AND me = ANY (rivals) FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE wa_agent.machine SET epoch = epoch + 1 WHERE id = peer;
    now_at := wa_agent.changed(peer || targets);
    UPDATE wa_agent.session s SET machine = given.target, epoch = s.epoch + 1, why = reason,
        moved_at = now(), generation = now_at
    FROM unnest(sessions, targets) AS given (id, target)
    WHERE s.id = given.id AND s.machine = peer;
    RETURN true;
END $$;

-- Holds only until the owner renews again: a hand-over that arrives late finds another number.
CREATE FUNCTION wa_agent.hand_over(
    me integer, my_epoch bigint, my_renewals bigint, session_id text, target integer, reason text
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT wa_agent.lock_owners() OR NOT wa_agent.speaks_for(me, my_epoch) OR NOT EXISTS (
            SELECT FROM wa_agent.machine WHERE id = target AND NOT gone) THEN
        RETURN false;
    END IF;
    PERFORM FROM wa_agent.machine WHERE id = me AND epoch = my_epoch AND renewals = my_renewals
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE wa_agent.session SET machine = target, epoch = epoch + 1, why = reason, moved_at = now()
        WHERE id = session_id AND machine = me;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE wa_agent.session SET generation = wa_agent.changed(ARRAY[me, target])
        WHERE id = session_id;
    RETURN true;
END $$;

CREATE FUNCTION wa_agent.insert_session(target integer, given jsonb, now_at bigint)
RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO wa_agent.session
        (id, machine, generation, engine, wanted, failover, labels, only_on, settings)
    VALUES (given ->> 'id', target, now_at, given ->> 'engine', given ->> 'wanted',
        given ->> 'failover', given -> 'labels', given ->> 'only_on', given -> 'settings')
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        DELETE FROM wa_agent.deleted_session WHERE id = given ->> 'id';
        RETURN true;
    END IF;
    RETURN false;
END $$;

CREATE FUNCTION wa_agent.create_session(
    me integer, my_epoch bigint, target integer, given jsonb
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wa_agent.lock_owners();
    IF NOT wa_agent.speaks_for(me, my_epoch) OR NOT EXISTS (
            SELECT FROM wa_agent.machine WHERE id = target AND NOT gone) THEN
        RAISE EXCEPTION 'this machine does not speak for the fleet' USING ERRCODE = 'WA003';
    END IF;
    IF NOT wa_agent.insert_session(target, given, 0) THEN
        RETURN false;
    END IF;
    UPDATE wa_agent.session SET generation = wa_agent.changed(ARRAY[target])
        WHERE id = given ->> 'id';
    RETURN true;
END $$;

-- All sessions or none; the ids that other machines own.
CREATE FUNCTION wa_agent.register_sessions(me integer, my_epoch bigint, given jsonb)
RETURNS text[] LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE taken text[]; now_at bigint;
BEGIN
    PERFORM wa_agent.lock_owners();
    IF NOT wa_agent.speaks_for(me, my_epoch) THEN
        RAISE EXCEPTION 'this machine does not speak for the fleet' USING ERRCODE = 'WA003';
    END IF;
    SELECT array_agg(s.id ORDER BY s.id) INTO taken FROM wa_agent.session s
        WHERE s.machine <> me AND s.id IN (SELECT it ->> 'id' FROM jsonb_array_elements(given) it);
    IF taken IS NOT NULL THEN
        RETURN taken;
    END IF;
    now_at := wa_agent.changed(ARRAY[me]);
    PERFORM wa_agent.insert_session(me, it, now_at) FROM jsonb_array_elements(given) it;
    RETURN '{}';
END $$;

-- Locks the owners; whether the machine owns the session in these epochs.
CREATE FUNCTION wa_agent.locks_own(
    me integer, my_epoch bigint, session_id text, session_epoch bigint
) RETURNS boolean LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT wa_agent.lock_owners();
    SELECT wa_agent.speaks_for(me, my_epoch) AND EXISTS (SELECT FROM wa_agent.session
        WHERE id = session_id AND machine = me AND epoch = session_epoch);
$$;

-- NULL leaves a value as it is.
CREATE FUNCTION wa_agent.update_session(
    me integer, my_epoch bigint, session_id text, session_epoch bigint, new_wanted text,
    new_settings jsonb, new_labels jsonb, new_failover text
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT wa_agent.locks_own(me, my_epoch, session_id, session_epoch) THEN
        RETURN false;
    END IF;
    UPDATE wa_agent.session SET wanted = coalesce(new_wanted, wanted),
        settings = coalesce(new_settings, settings), labels = coalesce(new_labels, labels),
        failover = coalesce(new_failover, failover), generation = wa_agent.changed(ARRAY[me])
    WHERE id = session_id;
    RETURN true;
END $$;

CREATE FUNCTION wa_agent.remove_session(session_id text, now_at bigint) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM wa_agent.session WHERE id = session_id;
    UPDATE wa_agent.command SET state = 'ended', outcome = 'deleted'
        WHERE session = session_id AND state = 'waiting';
    INSERT INTO wa_agent.deleted_session VALUES (session_id, now_at);
    -- Who read the directory longer ago than this reads the whole one.
    DELETE FROM wa_agent.deleted_session WHERE generation < now_at - 10000;
$$;

CREATE FUNCTION wa_agent.delete_session(
    me integer, my_epoch bigint, session_id text, session_epoch bigint
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT wa_agent.locks_own(me, my_epoch, session_id, session_epoch) THEN
        RETURN false;
    END IF;
    PERFORM wa_agent.remove_session(session_id, wa_agent.changed(ARRAY[me]));
    RETURN true;
END $$;

CREATE FUNCTION wa_agent.store_copy(
    me integer, my_epoch bigint, session_id text, session_epoch bigint, files bytea
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM wa_agent.session WHERE id = session_id AND machine = me AND epoch = session_epoch
        FOR SHARE;
    IF NOT FOUND OR NOT wa_agent.speaks_for(me, my_epoch) THEN
        RETURN false;
    END IF;
    INSERT INTO wa_agent.copy AS c VALUES (session_id, session_epoch, now(), files)
        ON CONFLICT (session) DO UPDATE
        SET epoch = excluded.epoch, written_at = excluded.written_at, packed = excluded.packed;
    RETURN true;
END $$;

-- What the owner last said of its sessions; the views of sessions that it does not own are left.
CREATE FUNCTION wa_agent.publish(me integer, my_epoch bigint, views jsonb) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT wa_agent.speaks_for(me, my_epoch) THEN
        RETURN;
    END IF;
    WITH mine AS MATERIALIZED (
        SELECT s.id, given.value FROM jsonb_each(views) AS given (id, value)
            JOIN wa_agent.session s ON s.id = given.id WHERE s.machine = me
        ORDER BY s.id FOR SHARE OF s)
    INSERT INTO wa_agent.view AS v SELECT id, me, now(), value FROM mine
        ON CONFLICT (session) DO UPDATE SET machine = excluded.machine,
        published_at = excluded.published_at, view = excluded.view;
END $$;
