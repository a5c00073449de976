-- As before, and refused for a copy of the machine's container: it has the same path in the same
-- boot, and another folder on the disk.
CREATE FUNCTION wa_agent.join_fleet(
    my_name text, my_installation uuid, my_address text, my_capacity integer, my_labels jsonb,
    my_engines text[], my_version text, my_key_fingerprint text, my_place text,
    my_ttl double precision, my_folder text
) RETURNS TABLE (id integer, epoch bigint, renewals bigint) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM wa_agent.machine m WHERE m.installation = my_installation
            AND m.folder NOT IN ('', my_folder) AND NOT m.gone
            AND m.alive_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'the machine is there twice' USING ERRCODE = 'WA007';
    END IF;
    RETURN QUERY SELECT * FROM wa_agent.join_fleet(my_name, my_installation, my_address,
        my_capacity, my_labels, my_engines, my_version, my_key_fingerprint, my_place, my_ttl);
    UPDATE wa_agent.machine m SET folder = my_folder WHERE m.installation = my_installation;
END $$;

REVOKE ALL ON FUNCTION wa_agent.join_fleet(text, uuid, text, integer, jsonb, text[], text, text,
    text, double precision, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_agent.join_fleet(text, uuid, text, integer, jsonb, text[], text, text,
    text, double precision, text) TO wa_agent_machine;
