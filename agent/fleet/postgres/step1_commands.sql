-- Commands that wait for the owner of a session. Each is taken by at most one process, once.

CREATE FUNCTION wa_agent.add_command(
    my_id uuid, session_id text, my_verb text, my_arguments jsonb, my_key text, my_asker text
) RETURNS wa_agent.command LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE owner integer; kept wa_agent.command;
BEGIN
    DELETE FROM wa_agent.command WHERE number IN (SELECT number FROM wa_agent.command
        WHERE asked_at < now() - interval '48 hours' AND state <> 'waiting'
        LIMIT 100 FOR UPDATE SKIP LOCKED);
    -- A deletion of the session waits for this command and ends it.
    SELECT machine INTO owner FROM wa_agent.session WHERE id = session_id FOR KEY SHARE;
    IF owner IS NULL THEN
        RAISE EXCEPTION 'no such session' USING ERRCODE = 'WA004';
    END IF;
    INSERT INTO wa_agent.command (id, session, verb, arguments, idempotency_key, asked_by)
        VALUES (my_id, session_id, my_verb, my_arguments, my_key, my_asker)
        ON CONFLICT DO NOTHING RETURNING * INTO kept;
    IF kept.id IS NOT NULL THEN
        IF (SELECT count(*) > 100 FROM wa_agent.command
                WHERE session = session_id AND state = 'waiting') THEN
            RAISE EXCEPTION 'too many commands wait' USING ERRCODE = 'WA006';
        END IF;
        PERFORM pg_notify('wa_agent', 'command ' || owner);
        RETURN kept;
    END IF;
    SELECT * INTO kept FROM wa_agent.command WHERE id = my_id OR idempotency_key = my_key
        ORDER BY id = my_id DESC LIMIT 1;
    IF kept.id IS NULL OR (kept.session, kept.verb, kept.arguments, kept.asked_by)
            <> (session_id, my_verb, my_arguments, my_asker) THEN
        RAISE EXCEPTION 'another command has this key' USING ERRCODE = 'WA005';
    END IF;
    RETURN kept;
END $$;

-- Marks them as begun before anybody carries them out: a process that dies later leaves an
-- unknown end, never a second beginning.
CREATE FUNCTION wa_agent.take_commands(me integer, my_epoch bigint, most integer)
RETURNS SETOF wa_agent.command LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT wa_agent.speaks_for(me, my_epoch) THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT c.number, c.asked_at < now() - interval '24 hours' AS late
            FROM wa_agent.command c JOIN wa_agent.session s ON s.id = c.session
            WHERE c.state = 'waiting' AND s.machine = me ORDER BY c.number LIMIT most
        FOR UPDATE OF c SKIP LOCKED FOR SHARE OF s SKIP LOCKED),
    taken AS (
        UPDATE wa_agent.command c SET machine = me, epoch = my_epoch,
            state = CASE WHEN late THEN 'ended' ELSE 'begun' END,
            outcome = CASE WHEN late THEN 'expired' ELSE '' END
        FROM due WHERE c.number = due.number RETURNING c.*)
    SELECT * FROM taken WHERE state = 'begun' ORDER BY number;
END $$;

-- A process that lives after all tells the end of a command that counted as unknown.
CREATE FUNCTION wa_agent.end_command(
    me integer, command_id uuid, my_outcome text, my_answer jsonb
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE wa_agent.command c SET state = 'ended', outcome = my_outcome, answer = my_answer
    FROM wa_agent.machine m
    WHERE c.id = command_id AND c.machine = me AND m.id = me AND m.role = session_user
        AND (c.state = 'begun' OR c.outcome = 'unknown');
    RETURN FOUND;
END $$;
