-- The machines' numbers say who lives, not the clock of the database: it may be set back or ahead.
-- A number that stands still for a ttl, by the clock of the machine that watched it, is of a machine
-- that is off.

-- As before, and from another place or folder only if nothing else can run as this machine:
-- `my_known` is the last number that it heard itself, `my_watched` one that it saw stand still for
-- a ttl. Refused: a row without an id, with the number to watch.
CREATE FUNCTION wa_agent.join_fleet(
    my_name text, my_installation uuid, my_address text, my_capacity integer, my_labels jsonb,
    my_engines text[], my_version text, my_key_fingerprint text, my_place text,
    my_ttl double precision, my_folder text, my_known bigint, my_watched bigint
) RETURNS TABLE (id integer, epoch bigint, renewals bigint) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE other wa_agent.machine;
BEGIN
    SELECT * INTO other FROM wa_agent.machine m
        WHERE m.installation = my_installation AND NOT m.gone
        AND (m.place <> my_place OR m.folder NOT IN ('', my_folder)) FOR NO KEY UPDATE;
    IF FOUND THEN
        IF other.renewals IS DISTINCT FROM my_watched AND NOT coalesce(
                other.alive_until <= clock_timestamp() AND other.renewals <= my_known, false) THEN
            RETURN QUERY SELECT NULL::integer, NULL::bigint, other.renewals;
            RETURN;
        END IF;
        -- The older functions ask the clock about them.
        UPDATE wa_agent.machine m SET place = my_place, folder = my_folder
            WHERE m.installation = my_installation;
    END IF;
    RETURN QUERY SELECT * FROM wa_agent.join_fleet(my_name, my_installation, my_address,
        my_capacity, my_labels, my_engines, my_version, my_key_fingerprint, my_place, my_ttl,
        my_folder);
END $$;

-- As before, for a machine whose number still is `its_renewals`: one that renewed meanwhile lives,
-- and neither gets a rival that it does not ask nor goes off the list.
CREATE FUNCTION wa_agent.forget(
    me integer, my_epoch bigint, machine_id integer, its_renewals bigint
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wa_agent.lock_owners();
    PERFORM FROM wa_agent.machine WHERE id = machine_id AND renewals = its_renewals
        FOR NO KEY UPDATE;
    IF NOT FOUND OR NOT wa_agent.speaks_for(me, my_epoch) THEN
        RETURN false;
    END IF;
    UPDATE wa_agent.machine SET rivals = rivals || me WHERE id = machine_id AND me <> ALL (rivals);
    UPDATE wa_agent.machine m SET gone = true, epoch = epoch + 1
        WHERE id = machine_id AND NOT gone
        AND NOT EXISTS (SELECT FROM wa_agent.session s WHERE s.machine = m.id);
    RETURN true;
END $$;

-- As before; `lapsed` are machines whose `numbers` the caller saw stand still for a ttl: nobody waits
-- for them while they have these numbers.
CREATE FUNCTION wa_agent.accept_loss(lapsed integer[], numbers bigint[]) RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT wa_agent.lock_owners() THEN
        UPDATE wa_agent.machine m SET alive_until = '-infinity'
            FROM unnest(lapsed, numbers) AS seen (id, number)
            WHERE m.id = seen.id AND m.renewals = seen.number;
    END IF;
    PERFORM wa_agent.accept_loss();
END $$;

REVOKE ALL ON FUNCTION wa_agent.accept_loss(integer[], bigint[]),
    wa_agent.forget(integer, bigint, integer, bigint),
    wa_agent.join_fleet(text, uuid, text, integer, jsonb, text[], text, text, text,
        double precision, text, bigint, bigint)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_agent.accept_loss(integer[], bigint[]),
    wa_agent.forget(integer, bigint, integer, bigint),
    wa_agent.join_fleet(text, uuid, text, integer, jsonb, text[], text, text, text,
        double precision, text, bigint, bigint)
    TO wa_agent_machine;
