-- A process that keeps a trained model has to hear of everything that changes in it: its dataset may be deleted, and a person
-- may change whatever they like.
DROP TRIGGER models_announce_updated ON models;
CREATE TRIGGER models_announce_updated AFTER UPDATE ON models FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.progress IS DISTINCT FROM NEW.progress
        OR (NEW.status = 'trained' AND OLD IS DISTINCT FROM NEW))
    EXECUTE FUNCTION announce_model();
