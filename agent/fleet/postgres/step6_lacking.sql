-- A stored copy that lacks its session's changes for long, as the owner says: a takeover leaves such
-- a session where it is, until a copy is stored or an operator accepts the old one.
ALTER TABLE wa_agent.copy ADD COLUMN lacking_since timestamptz;
CREATE INDEX copy_lacking ON wa_agent.copy (session) WHERE lacking_since IS NOT NULL;

CREATE FUNCTION wa_agent.copy_follows() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.lacking_since := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER follows BEFORE UPDATE OF written_at ON wa_agent.copy
    FOR EACH ROW WHEN (OLD.lacking_since IS NOT NULL) EXECUTE FUNCTION wa_agent.copy_follows();

-- Each with the last number that its owner began to store: a word that arrives late says nothing of
-- a later copy.
CREATE FUNCTION wa_agent.copies_lack(
    me integer, my_epoch bigint, sessions text[], numbers bigint[]
) RETURNS void LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE wa_agent.copy c SET lacking_since = now()
    FROM unnest(sessions, numbers) AS given (id, number), wa_agent.session s
    WHERE c.session = given.id AND c.number <= given.number AND c.lacking_since IS NULL
        AND s.id = c.session AND s.machine = me AND wa_agent.speaks_for(me, my_epoch);
$$;

-- For a session of a machine that is off: `its_renewals` was seen to stand still for a ttl.
CREATE FUNCTION wa_agent.accept_copy(
    me integer, my_epoch bigint, session_id text, owner integer, its_renewals bigint
) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE wa_agent.copy c SET lacking_since = NULL
    FROM wa_agent.session s, wa_agent.machine m
    WHERE c.session = session_id AND c.lacking_since IS NOT NULL AND s.id = session_id
        AND s.machine = owner AND m.id = owner AND m.renewals = its_renewals
        AND wa_agent.speaks_for(me, my_epoch);
    RETURN FOUND;
END $$;

REVOKE ALL ON FUNCTION wa_agent.copy_follows, wa_agent.copies_lack, wa_agent.accept_copy FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_agent.copies_lack, wa_agent.accept_copy TO wa_agent_machine;
