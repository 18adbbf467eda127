DROP TABLE dataset_chunks;
DROP TABLE datasets;
