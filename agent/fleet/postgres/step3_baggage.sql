-- What goes with a session beside its files, in sealed pieces. An older program neither reads nor
-- writes it.
CREATE TABLE wa_agent.baggage (
    session text NOT NULL REFERENCES wa_agent.session ON DELETE CASCADE,
    name text NOT NULL,
    epoch bigint NOT NULL,
    number bigint NOT NULL,  -- of the write; one that arrives late replaces no later one
    packed bytea NOT NULL,
    PRIMARY KEY (session, name)
);

-- `kept`: the names of all pieces from now on; NULL: more are to come. NULL: a later one was
-- written before.
CREATE FUNCTION wa_agent.store_baggage(
    me integer, my_epoch bigint, session_id text, session_epoch bigint, my_number bigint,
    names text[], pieces bytea[], kept text[]
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM wa_agent.session WHERE id = session_id AND machine = me AND epoch = session_epoch
        FOR SHARE;
    IF NOT FOUND OR NOT wa_agent.speaks_for(me, my_epoch) THEN
        RETURN false;
    END IF;
    PERFORM FROM wa_agent.baggage
        WHERE session = session_id AND epoch = session_epoch AND number > my_number;
    IF FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO wa_agent.baggage (session, name, epoch, number, packed)
        SELECT session_id, given.name, session_epoch, my_number, given.piece
        FROM unnest(names, pieces) AS given (name, piece)
        ON CONFLICT (session, name) DO UPDATE
        SET epoch = excluded.epoch, number = excluded.number, packed = excluded.packed;
    IF kept IS NOT NULL THEN
        DELETE FROM wa_agent.baggage WHERE session = session_id AND name <> ALL (kept);
    END IF;
    RETURN true;
END $$;

REVOKE ALL ON FUNCTION wa_agent.store_baggage FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_agent.store_baggage TO wa_agent_machine;
GRANT SELECT ON wa_agent.baggage TO wa_agent_machine;
