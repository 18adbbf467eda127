-- Whoever waits for a model hears of its status and its progress on the channel ridgeline_models: the payload is the model's id.
-- A trigger sees to it, so that no statement can forget it, whichever process or person changes the row. The announcement is a
-- hint: the row itself is the truth.
CREATE FUNCTION announce_model() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('ridgeline_models', OLD.id::text);
    RETURN NULL;
END
$$;

CREATE TRIGGER models_announce_updated AFTER UPDATE ON models FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.progress IS DISTINCT FROM NEW.progress)
    EXECUTE FUNCTION announce_model();
CREATE TRIGGER models_announce_deleted AFTER DELETE ON models FOR EACH ROW
    EXECUTE FUNCTION announce_model();
