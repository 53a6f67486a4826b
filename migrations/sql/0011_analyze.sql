-- +goose Up

-- What ANALYZE reads goes by the widest target of a table's columns: 100 values are
-- a sample of 30,000 rows, payloads and all, which a log that grows by thousands a
-- second had read every two seconds. That was a quarter of all that Postgres did.
-- Plans go by keys, so little need be known; and copies of patients' data have no
-- place in the planner's statistics.
ALTER TABLE medilab.events
    ALTER COLUMN position SET STATISTICS 10,
    ALTER COLUMN stream SET STATISTICS 10,
    ALTER COLUMN version SET STATISTICS 0,
    ALTER COLUMN type SET STATISTICS 10,
    ALTER COLUMN data SET STATISTICS 0,
    ALTER COLUMN metadata SET STATISTICS 0,
    ALTER COLUMN recorded_at SET STATISTICS 10;
ALTER TABLE medilab.events SET (autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);
ALTER TABLE medilab.seals SET (autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);

ALTER TABLE medilab.outbox ALTER COLUMN event_data SET STATISTICS 0;
ALTER TABLE medilab.parked_events ALTER COLUMN event_data SET STATISTICS 0;
