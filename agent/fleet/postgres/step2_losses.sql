-- After a loss of records each machine tells what it runs and what it deleted, with the generation
-- in which it heard that: the newest wins over older records. An operator accepts what is left.
ALTER TABLE wa_agent.fleet
    ADD COLUMN losses bigint NOT NULL DEFAULT 0,  -- that operators accepted
    ADD COLUMN lost_after bigint NOT NULL DEFAULT 0;  -- the generation of the records that are left
ALTER TABLE wa_agent.machine
    ADD COLUMN told bigint NOT NULL DEFAULT 0,  -- the last loss for which it told what it runs
    ADD COLUMN asked bigint NOT NULL DEFAULT 0,  -- the machine's own number of its last renewal
    ADD COLUMN folder text NOT NULL DEFAULT '';  -- of its files, on the disk of its process
ALTER TABLE wa_agent.session
    ADD COLUMN told bigint NOT NULL DEFAULT 0;  -- the generation with which a machine told it
ALTER TABLE wa_agent.deleted_session ADD COLUMN told bigint NOT NULL DEFAULT 0;

-- `my_losses`: the accepted losses that the machine has heard of, NULL from an older program. What
-- it misses from before a loss that it has not heard of is accepted already, and halts nothing.
-- `my_asked`: the machine's own number of this renewal. One that arrives after a later one changes
-- nothing: it would bring back rivals that the machine does not ask for promises any more.
CREATE FUNCTION wa_agent.renew(
    me integer, my_epoch bigint, my_renewals bigint, my_rivals integer[], my_generation bigint,
    ttl double precision, my_place text, my_losses bigint, my_asked bigint,
    my_folder text
) RETURNS TABLE (
    accepted boolean, epoch bigint, ids integer[], numbers bigint[], alive integer[],
    generation bigint, changes bigint, settled boolean, halted text, commands boolean,
    server text, losses bigint, told boolean, asked bigint
) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    fleet wa_agent.fleet;
    mine wa_agent.machine;
    lost text := '';
    known boolean;
    late boolean;
BEGIN
    SELECT * INTO mine FROM wa_agent.machine WHERE id = me FOR NO KEY UPDATE;
    IF mine.gone OR mine.role <> session_user OR mine.place <> my_place
            OR (mine.folder <> '' AND mine.folder <> my_folder) THEN
        RETURN;
    END IF;
    SELECT * INTO fleet FROM wa_agent.fleet;
    known := coalesce(my_losses < fleet.losses, false);
    late := coalesce(my_asked <= mine.asked, false);
    IF late THEN
        NULL;
    ELSIF mine.id IS NULL OR mine.renewals < my_renewals THEN
        lost := 'the renewals of a machine were lost';
    ELSIF mine.epoch < my_epoch THEN
        lost := 'the epoch of a machine was lost';
    ELSIF fleet.generation < my_generation THEN
        lost := 'a change of owners was lost';
    ELSIF fleet.losses < my_losses THEN
        lost := 'an accepted loss was lost';
    END IF;
    IF lost <> '' THEN
        -- From now on no number of the lost records is newer than these, so one acceptance is
        -- enough; and who read the directory before reads the whole one (see `remove_session`).
        UPDATE wa_agent.fleet f SET
            lost_after = CASE WHEN f.halted = '' AND NOT known THEN f.generation ELSE f.lost_after END,
            halted = CASE WHEN f.halted = '' AND NOT known THEN lost ELSE f.halted END,
            generation = f.generation
                + CASE WHEN f.generation < my_generation THEN my_generation - f.generation + 10001
                    ELSE 0 END,
            losses = greatest(f.losses, my_losses)
        RETURNING * INTO fleet;
        UPDATE wa_agent.machine SET renewals = greatest(renewals, my_renewals) WHERE id = me;
    END IF;
    accepted := NOT late AND (mine.epoch = my_epoch
        OR (mine.id IS NOT NULL AND (fleet.halted <> '' OR (known AND mine.epoch < my_epoch))));
    IF accepted THEN
        -- An epoch that was lost counts: the machine and its rivals have heard of it.
        UPDATE wa_agent.machine SET renewals = greatest(renewals, my_renewals) + 1,
            epoch = greatest(epoch, my_epoch),
            rivals = my_rivals, asked = coalesce(my_asked, asked), renewed_at = clock_timestamp(),
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
    losses := fleet.losses;
    told := mine.told > fleet.losses;
    asked := greatest(mine.asked, my_asked);
    RETURN NEXT;
END $$;

-- An older program tells nothing: nobody waits for it.
CREATE OR REPLACE FUNCTION wa_agent.renew(
    me integer, my_epoch bigint, my_renewals bigint, my_rivals integer[], my_generation bigint,
    ttl double precision, my_place text
) RETURNS TABLE (
    accepted boolean, epoch bigint, ids integer[], numbers bigint[], alive integer[],
    generation bigint, changes bigint, settled boolean, halted text, commands boolean,
    server text
) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT it.accepted, it.epoch, it.ids, it.numbers, it.alive, it.generation,
        it.changes, it.settled, it.halted, it.commands, it.server
        FROM wa_agent.renew(me, my_epoch, my_renewals, my_rivals, my_generation, ttl, my_place,
            NULL, NULL, NULL) it;
    UPDATE wa_agent.machine SET told = 1 + (SELECT losses FROM wa_agent.fleet)
        WHERE id = me AND role = session_user AND told <= (SELECT losses FROM wa_agent.fleet);
END $$;

-- What the machine runs and what it deleted, each with the last generation in which it heard of
-- it; the ids that it owns in the epoch that it tells. While the records that are left are not
-- accepted, a later generation than theirs wins; after that, only what another machine cannot run.
CREATE FUNCTION wa_agent.tell_sessions(me integer, my_epoch bigint, given jsonb, deleted jsonb)
RETURNS text[] LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fleet wa_agent.fleet; kept wa_agent.session; it jsonb; one text; number bigint;
    own text[] := '{}'; removed text[] := '{}'; machines integer[] := ARRAY[me]; now_at bigint;
    may_change boolean;
BEGIN
    PERFORM wa_agent.lock_owners();
    IF NOT wa_agent.speaks_for(me, my_epoch) THEN
        RAISE EXCEPTION 'this machine does not speak for the fleet' USING ERRCODE = 'WA003';
    END IF;
    SELECT * INTO fleet FROM wa_agent.fleet;
    FOR it IN SELECT value FROM jsonb_array_elements(given) LOOP
        one := it ->> 'id';
        number := (it ->> 'generation')::bigint;
        SELECT * INTO kept FROM wa_agent.session WHERE id = one;
        IF kept.machine = me AND kept.epoch = (it ->> 'epoch')::bigint THEN
            number := greatest(number, kept.told);  -- what operators ordered may be newer
        ELSE
            may_change := fleet.halted <> '' OR coalesce(kept.machine = me, false);
            CONTINUE WHEN NOT may_change OR number <= wa_agent.newest_known(one);
            IF kept.id IS NULL THEN
                PERFORM wa_agent.insert_session(me,
                    '{"failover": "newest", "labels": {}}'::jsonb || jsonb_strip_nulls(it), 0);
            END IF;
        END IF;
        UPDATE wa_agent.session SET machine = me, epoch = (it ->> 'epoch')::bigint,
            told = CASE WHEN fleet.halted <> '' THEN number ELSE 0 END,
            wanted = it ->> 'wanted', settings = it -> 'settings', only_on = it ->> 'only_on',
            failover = coalesce(it ->> 'failover', failover),
            labels = coalesce(nullif(it -> 'labels', 'null'), labels)
        WHERE id = one;
        own := own || one;
        machines := machines || kept.machine;
    END LOOP;
    FOR one, number IN SELECT key, value::bigint FROM jsonb_each_text(deleted) LOOP
        IF fleet.halted <> '' AND number > wa_agent.newest_known(one) THEN
            removed := removed || one;
            machines := machines
                || (SELECT machine FROM wa_agent.session WHERE id = one);
        END IF;
    END LOOP;
    IF own || removed <> '{}' THEN
        now_at := wa_agent.changed(array_remove(machines, NULL));
        UPDATE wa_agent.session SET generation = now_at WHERE id = ANY (own);
        DELETE FROM wa_agent.deleted_session WHERE id = ANY (removed);
        PERFORM wa_agent.remove_session(id, now_at) FROM unnest(removed) AS id;
        UPDATE wa_agent.deleted_session SET told = (deleted ->> id)::bigint
            WHERE id = ANY (removed);
    END IF;
    UPDATE wa_agent.machine SET told = fleet.losses + 1 WHERE id = me AND fleet.halted <> '';
    RETURN own;
END $$;

-- With which generation the newest word about a session came that these records have.
CREATE FUNCTION wa_agent.newest_known(session_id text) RETURNS bigint LANGUAGE sql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest(f.lost_after, it.number)
    FROM wa_agent.fleet f LEFT JOIN (
        SELECT CASE WHEN told > 0 THEN told ELSE generation END AS number
            FROM wa_agent.session WHERE id = session_id
        UNION ALL SELECT CASE WHEN told > 0 THEN told ELSE generation END
            FROM wa_agent.deleted_session WHERE id = session_id) it ON true;
$$;

-- Refused while a machine that lives has not told what it runs: an older record would win.
CREATE OR REPLACE FUNCTION wa_agent.accept_loss() RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE silent text;
BEGIN
    IF NOT wa_agent.lock_owners() THEN
        SELECT string_agg(name, ', ' ORDER BY name) INTO silent FROM wa_agent.machine
            WHERE NOT gone AND alive_until > clock_timestamp()
            AND told <= (SELECT losses FROM wa_agent.fleet);
        IF silent IS NOT NULL THEN
            RAISE EXCEPTION '%', silent USING ERRCODE = 'WA009';
        END IF;
    END IF;
    UPDATE wa_agent.session SET told = 0 WHERE told <> 0;
    UPDATE wa_agent.deleted_session SET told = 0 WHERE told <> 0;
    UPDATE wa_agent.fleet SET halted = '', generation = generation + 1, losses = losses + 1,
        accepted_at = clock_timestamp();
END $$;

REVOKE ALL ON FUNCTION wa_agent.tell_sessions, wa_agent.newest_known,
    wa_agent.renew(integer, bigint, bigint, integer[], bigint, double precision, text, bigint,
        bigint, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wa_agent.tell_sessions,
    wa_agent.renew(integer, bigint, bigint, integer[], bigint, double precision, text, bigint,
        bigint, text)
    TO wa_agent_machine;
