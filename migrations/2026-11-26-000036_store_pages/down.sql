DROP TRIGGER dataset_chunks_drop_pages ON dataset_chunks;
DROP FUNCTION drop_pages();
UPDATE dataset_chunks SET cells = (
    SELECT string_agg(pages.cells, '' ORDER BY page) FROM dataset_pages pages
    WHERE pages.dataset_id = dataset_chunks.dataset_id AND pages.position = dataset_chunks.position
) || cells
WHERE n_pages > 0;
ALTER TABLE dataset_chunks DROP COLUMN n_pages;
DROP TABLE dataset_pages;
