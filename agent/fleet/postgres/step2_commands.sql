-- As before, and those again that this process was given in an answer that got lost: `known` are the
-- ones that it has.
CREATE FUNCTION wa_agent.take_commands(me integer, my_epoch bigint, most integer, known uuid[])
RETURNS SETOF wa_agent.command LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM wa_agent.take_commands(me, my_epoch, most)
        UNION SELECT c.* FROM wa_agent.command c
        WHERE c.machine = me AND c.epoch = my_epoch AND c.state = 'begun' AND c.id <> ALL (known)
            AND wa_agent.speaks_for(me, my_epoch)
        ORDER BY number;
END $$;

REVOKE ALL ON FUNCTION wa_agent.take_commands(integer, bigint, integer, uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_agent.take_commands(integer, bigint, integer, uuid[])
    TO wa_agent_machine;
