-- What an agent's role may do. Every other function and every write is the owner's alone.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA wa_agent FROM PUBLIC;
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'wa_agent_machine') THEN
        CREATE ROLE wa_agent_machine NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- another fleet of this server made it
END $$;
GRANT USAGE ON SCHEMA wa_agent TO wa_agent_machine;
GRANT SELECT ON wa_agent.fleet, wa_agent.session, wa_agent.deleted_session, wa_agent.copy,
    wa_agent.view, wa_agent.command, wa_agent.known_commands TO wa_agent_machine;
GRANT SELECT (id, name, gone, epoch, renewals, rivals, renewed_at, alive_until, changes, address,
    capacity, labels, engines, drained, version) ON wa_agent.machine TO wa_agent_machine;
GRANT EXECUTE ON FUNCTION wa_agent.join_fleet, wa_agent.renew, wa_agent.set_drained,
    wa_agent.set_capacity, wa_agent.forget, wa_agent.leave_fleet, wa_agent.accept_loss, wa_agent.take_over,
    wa_agent.hand_over, wa_agent.create_session, wa_agent.register_sessions,
    wa_agent.update_session, wa_agent.delete_session, wa_agent.store_copy, wa_agent.publish,
    wa_agent.add_command, wa_agent.take_commands, wa_agent.end_command TO wa_agent_machine;
