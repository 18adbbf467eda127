DROP TRIGGER models_announce_updated ON models;
DROP TRIGGER models_announce_deleted ON models;
DROP FUNCTION announce_model();
