-- +goose Up
SET LOCAL medilab.oldest_schema = 46;
SET LOCAL lock_timeout = '500ms';

-- Keys of new patients came fast enough for the table to be analyzed every two seconds, by a sample of
-- 30,000 rows: a hundredth of the work of each delivery. Plans for it need next to nothing of that.
ALTER TABLE medilab.data_keys
    ALTER COLUMN owner SET STATISTICS 10,
    ALTER COLUMN number SET STATISTICS 10,
    ALTER COLUMN until SET STATISTICS 10,
    ALTER COLUMN wrapped SET STATISTICS 0;
ALTER TABLE medilab.data_keys SET (autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000);
