-- Most numbers of a CSV are decimals of few digits, which need half the bytes of a double. Null: cells holds doubles. Otherwise cells
-- holds 4 bytes a cell, in little-endian byte order: the upper 27 bits are a whole number, the lower 5 the power of ten to divide it
-- by. A power of 31 stands for the next of the doubles in others.
ALTER TABLE dataset_chunks ADD COLUMN others bytea;
ALTER TABLE dataset_chunks ALTER COLUMN others SET STORAGE EXTERNAL;
ALTER TABLE dataset_chunks DROP CONSTRAINT dataset_chunks_cells_check;
ALTER TABLE dataset_chunks ADD CONSTRAINT dataset_chunks_cells_check CHECK (octet_length(cells) > 0
    AND octet_length(cells) % CASE WHEN others IS NULL THEN 8 ELSE 4 END = 0 AND octet_length(others) % 8 = 0);
