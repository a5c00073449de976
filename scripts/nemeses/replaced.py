"""Counts stored copies that an older one replaced: by the database itself, whoever wrote it."""

from tests.standin.postgres import Postgres

WATCH = """
CREATE TABLE replaced (session text, before bigint, after bigint);
CREATE FUNCTION note_replaced() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO public.replaced VALUES (OLD.session, OLD.number, NEW.number);
    RETURN NULL;
END $$;
CREATE TRIGGER replaced AFTER UPDATE ON wa_agent.copy FOR EACH ROW
    WHEN (NEW.number <= OLD.number OR NEW.epoch < OLD.epoch) EXECUTE FUNCTION note_replaced();
"""


def watch(database: Postgres) -> None:
    database.sql(WATCH)


def replaced(database: Postgres) -> list[str]:
    """session|number before|number after."""
    return database.sql("SELECT * FROM replaced").split()
