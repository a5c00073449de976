-- A stored copy and what changed since, in the order of their numbers: each is whole by itself, so a
-- takeover finds the session as it was after one of them.
ALTER TABLE wa_agent.machine ADD COLUMN knows integer NOT NULL DEFAULT 0;  -- tables, when it joined
ALTER TABLE wa_agent.copy ALTER COLUMN packed SET STORAGE EXTERNAL;  -- it is packed already
ALTER TABLE wa_agent.copy SET (fillfactor = 70);
CREATE TABLE wa_agent.copy_change (
    session text NOT NULL REFERENCES wa_agent.copy ON DELETE CASCADE,
    number bigint NOT NULL,
    after bigint NOT NULL,  -- the number of the copy or the change that it follows
    packed bytea NOT NULL,
    PRIMARY KEY (session, number)
);
ALTER TABLE wa_agent.copy_change ALTER COLUMN packed SET STORAGE EXTERNAL;

-- A program that joins says afterwards what it knows; an older one says nothing.
CREATE FUNCTION wa_agent.forget_what_it_knows() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.knows := 0;
    RETURN NEW;
END $$;
CREATE TRIGGER joins BEFORE UPDATE OF version ON wa_agent.machine
    FOR EACH ROW EXECUTE FUNCTION wa_agent.forget_what_it_knows();

CREATE FUNCTION wa_agent.knows(me integer, my_epoch bigint, tables integer) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE wa_agent.machine SET knows = tables
        WHERE id = me AND wa_agent.speaks_for(me, my_epoch);
$$;

-- A whole copy takes the place of all changes.
CREATE FUNCTION wa_agent.remove_changes() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM wa_agent.copy_change WHERE session = NEW.session;
    RETURN NULL;
END $$;
CREATE TRIGGER whole AFTER UPDATE OF packed ON wa_agent.copy
    FOR EACH ROW EXECUTE FUNCTION wa_agent.remove_changes();

-- NULL: a whole copy is wanted, as something else is stored, or a machine's program is too old to
-- read changes. False: the session has another owner.
CREATE FUNCTION wa_agent.store_change(
    me integer, my_epoch bigint, session_id text, session_epoch bigint, change bytea,
    my_number bigint, my_after bigint
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM wa_agent.session WHERE id = session_id AND machine = me AND epoch = session_epoch
        FOR SHARE;
    IF NOT FOUND OR NOT wa_agent.speaks_for(me, my_epoch) THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM wa_agent.machine WHERE NOT gone AND knows < 5) THEN
        RETURN NULL;
    END IF;
    UPDATE wa_agent.copy SET number = my_number, written_at = now()
        WHERE session = session_id AND epoch = session_epoch AND number = my_after
        AND my_number > my_after;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO wa_agent.copy_change VALUES (session_id, my_number, my_after, change);
    RETURN true;
END $$;

REVOKE ALL ON FUNCTION wa_agent.store_change, wa_agent.knows FROM PUBLIC;
REVOKE ALL ON FUNCTION wa_agent.forget_what_it_knows, wa_agent.remove_changes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_agent.store_change, wa_agent.knows TO wa_agent_machine;
GRANT SELECT ON wa_agent.copy_change TO wa_agent_machine;
