-- Each copy of a session has a number, which rises: one that arrives late replaces no newer one.
ALTER TABLE wa_agent.copy ADD COLUMN number bigint NOT NULL DEFAULT 0;

-- False also for a machine whose numbers are behind: it was made again from an older image, and
-- reads what it owns again.
CREATE FUNCTION wa_agent.store_copy(
    me integer, my_epoch bigint, session_id text, session_epoch bigint, files bytea,
    my_number bigint
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM wa_agent.session WHERE id = session_id AND machine = me AND epoch = session_epoch
        FOR SHARE;
    IF NOT FOUND OR NOT wa_agent.speaks_for(me, my_epoch) THEN
        RETURN false;
    END IF;
    INSERT INTO wa_agent.copy AS c (session, epoch, written_at, packed, number)
        VALUES (session_id, session_epoch, now(), files, coalesce(my_number, 0))
        ON CONFLICT (session) DO UPDATE
        SET epoch = excluded.epoch, written_at = excluded.written_at, packed = excluded.packed,
            number = coalesce(my_number, c.number)
        WHERE my_number IS NULL OR c.number < my_number;
    IF FOUND THEN
        RETURN true;
    END IF;
    UPDATE wa_agent.machine SET changes = changes + 1 WHERE id = me;
    PERFORM pg_notify('wa_agent', 'changes ' || me);
    RETURN false;
END $$;

-- An older program counts no copies.
CREATE OR REPLACE FUNCTION wa_agent.store_copy(
    me integer, my_epoch bigint, session_id text, session_epoch bigint, files bytea
) RETURNS boolean LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT wa_agent.store_copy(me, my_epoch, session_id, session_epoch, files, NULL);
$$;

REVOKE ALL ON FUNCTION wa_agent.store_copy(integer, bigint, text, bigint, bytea, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_agent.store_copy(integer, bigint, text, bigint, bytea, bigint)
    TO wa_agent_machine;
