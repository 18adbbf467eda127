-- Doubles again; slow, but nothing is lost.
CREATE OR REPLACE FUNCTION pg_temp.little_endian(bytes bytea) RETURNS bytea LANGUAGE sql AS
    $$ SELECT string_agg(substr(bytes, place, 1), '' ORDER BY place DESC) FROM generate_series(1, 8) place $$;

CREATE OR REPLACE FUNCTION pg_temp.unpacked(cells bytea, others bytea) RETURNS bytea LANGUAGE sql AS $$
    SELECT string_agg(CASE
        WHEN code & 31 = 31 THEN substr(others, (8 * (count_of_others - 1) + 1)::integer, 8)
        ELSE pg_temp.little_endian(float8send((code >> 5)::double precision / ('1e' || (code & 31))::double precision))
    END, '' ORDER BY cell)
    FROM (
        SELECT cell, code, count(*) FILTER (WHERE code & 31 = 31) OVER (ORDER BY cell) AS count_of_others
        FROM generate_series(0, octet_length(cells) / 4 - 1) cell,
            LATERAL (SELECT (get_byte(cells, 4 * cell + 3) << 24) | (get_byte(cells, 4 * cell + 2) << 16)
                | (get_byte(cells, 4 * cell + 1) << 8) | get_byte(cells, 4 * cell) AS code) codes
    ) numbered
$$;

ALTER TABLE dataset_chunks DROP CONSTRAINT dataset_chunks_cells_check;
UPDATE dataset_chunks SET cells = pg_temp.unpacked(cells, others) WHERE others IS NOT NULL;
ALTER TABLE dataset_chunks DROP COLUMN others;
ALTER TABLE dataset_chunks ADD CONSTRAINT dataset_chunks_cells_check
    CHECK (octet_length(cells) > 0 AND octet_length(cells) % 8 = 0);
