-- +goose Up

-- Answers to requests that carried an idempotency key, encrypted: a repetition is answered
-- so. Key is the id of the key's stream in the log, which says that the request was carried out.
CREATE TABLE medilab.answers (
    key uuid PRIMARY KEY,
    body_hash text NOT NULL,
    answer text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX answers_made_at ON medilab.answers (made_at);
