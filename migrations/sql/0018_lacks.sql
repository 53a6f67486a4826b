-- +goose Up

-- What a live node lacks for its calls, in a word: an alert says so. Null: nothing.
ALTER TABLE medilab.nodes ADD COLUMN lacks text;
