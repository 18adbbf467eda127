DROP TRIGGER models_announce_updated ON models;
CREATE TRIGGER models_announce_updated AFTER UPDATE ON models FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.progress IS DISTINCT FROM NEW.progress)
    EXECUTE FUNCTION announce_model();
