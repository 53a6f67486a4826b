-- +goose Up
SET LOCAL medilab.oldest_schema = 47;
SET LOCAL lock_timeout = '500ms';

-- subject_places has its place.
DROP TABLE medilab.subject_events; -- no longer used since 47
