package eventstore

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// refuseChange is the body of medilab.refuse_change as the migrations make it.
const refuseChange = `
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('medilab.archiving', true) = pg_current_xact_id()::text
            AND pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RETURN NULL; -- by medilab.drop_archived, for the owner
    END IF;
    RAISE EXCEPTION 'medilab.% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END `

// checkVersion is the body of medilab.check_schema_version as the migrations make it, the
// trigger of log_head.
const checkVersion = `
DECLARE
    present bigint := (SELECT schema_version FROM medilab.log_head);
BEGIN
    IF current_setting('application_name') = 'medilab-webhooks' -- psql may
            AND coalesce(nullif(current_setting('medilab.schema_version', true), ''), '0')::bigint < present THEN
        RAISE EXCEPTION 'the schema medilab is at version %, which this program does not know', present
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Use the version of medilab-webhooks that migrated the database.';
    END IF;
    RETURN NEW;
END `

// schemaSQL returns in words what about the tables of the log is not as the migrations
// make it, and lets what was appended be changed or hidden. What the log holds is
// evidence only while nothing of this is so. $1 is refuseChange,
// $2 checkVersion.
//
// A trigger's type 58 is BEFORE UPDATE OR DELETE OR TRUNCATE FOR EACH STATEMENT.
const schemaSQL = `
WITH wanted (name, guard, keys, columns) AS (VALUES
	('events', 'events_append_only', ARRAY['PRIMARY KEY (position)', 'UNIQUE (stream, version)'], ARRAY['position bigint',
		'stream text', 'version bigint', 'type text', 'data bytea', 'metadata json', 'recorded_at timestamp with time zone']),
	('seals', 'seals_append_only', ARRAY['PRIMARY KEY (last_position)'],
		ARRAY['last_position bigint', 'first_position bigint', 'recorded_at timestamp with time zone', 'seal bytea']),
	('log_head', NULL, ARRAY['PRIMARY KEY (one)', 'CHECK (one)'],
		ARRAY['one boolean', 'position bigint', 'last_seal bytea', 'recorded_at timestamp with time zone', 'configuration bigint', 'schema_version bigint'])
), found AS (
	SELECT 'medilab.' || w.name AS relation, w.*, c.*
	FROM wanted AS w LEFT JOIN pg_namespace AS n ON n.nspname = 'medilab'
	LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name
), triggers AS (
	SELECT f.relation, f.guard, t.*, p.prosrc = $1 AND p.proname = 'refuse_change' AND p.pronamespace = f.relnamespace
		AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql') AS refuses,
		f.name = 'log_head' AND p.prosrc = $2 AND p.pronamespace = f.relnamespace AS checks
	FROM found AS f JOIN pg_trigger AS t ON t.tgrelid = f.oid AND NOT t.tgisinternal JOIN pg_proc AS p ON p.oid = t.tgfoid
)
SELECT relation || CASE relkind WHEN 'v' THEN ' is a view' WHEN 'm' THEN ' is a materialized view' WHEN 'f' THEN ' is a foreign table'
		WHEN 'p' THEN ' is a partitioned table' ELSE ' does not exist' END || ', not a table: what it shows need not be what was appended'
	FROM found WHERE relkind IS DISTINCT FROM 'r'
UNION ALL SELECT relation || ' is unlogged: a crash empties it' FROM found WHERE relpersistence <> 'p'
UNION ALL SELECT relation || ' has row security: some of its rows may be hidden' FROM found WHERE relrowsecurity OR relforcerowsecurity
UNION ALL SELECT format('%s has the rule %s: what is written to it may end elsewhere', relation, rulename)
	FROM found AS f JOIN pg_rewrite AS r ON r.ev_class = f.oid WHERE relkind = 'r'
UNION ALL SELECT format('%s has the table %s for a child: it shows rows that were not appended', relation, inhrelid::regclass)
	FROM found AS f JOIN pg_inherits AS i ON i.inhparent = f.oid WHERE relkind = 'r'
UNION ALL SELECT format('the trigger %s of %s is missing: entries can be changed and deleted', guard, relation)
	FROM found AS f WHERE guard IS NOT NULL AND NOT EXISTS (SELECT FROM triggers AS t WHERE t.tgrelid = f.oid AND t.tgname = f.guard)
UNION ALL SELECT format('the trigger %s of %s %s: entries can be changed and deleted', tgname, relation,
		CASE tgenabled WHEN 'D' THEN 'is disabled' WHEN 'A' THEN 'does not refuse every change' ELSE 'is not enabled always' END)
	FROM triggers WHERE tgname = guard AND (tgenabled <> 'A' OR tgtype <> 58 OR tgqual IS NOT NULL OR NOT refuses)
UNION ALL SELECT format('%s has the trigger %s, which is not of this product', relation, tgname)
	FROM triggers WHERE tgname IS DISTINCT FROM guard AND NOT checks
UNION ALL SELECT format('%s has no constraint %s', relation, key) FROM found CROSS JOIN unnest(keys) AS key
	WHERE relkind = 'r' AND NOT EXISTS (SELECT FROM pg_constraint AS c LEFT JOIN pg_index AS i ON i.indexrelid = c.conindid WHERE c.conrelid = found.oid
		AND c.convalidated AND i.indisvalid IS NOT FALSE AND replace(pg_get_constraintdef(c.oid), '"', '') = key)
UNION ALL SELECT format('%s.%s is missing, or not a column of the type it had (%s)', relation, split_part(col, ' ', 1), substr(col, strpos(col, ' ') + 1))
	FROM found CROSS JOIN unnest(columns) AS col
	WHERE relkind = 'r' AND NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = found.oid AND a.attnum > 0 AND NOT a.attisdropped
		AND a.attgenerated = '' AND a.attname || ' ' || format_type(a.atttypid, a.atttypmod) = col)
UNION ALL SELECT format('%s.%s may be NULL: what it held can be taken away', relation, attname)
	FROM found AS f JOIN pg_attribute AS a ON a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE relkind = 'r' AND NOT a.attnotnull`

// schema checks what the tables of the log are.
func (v *verifier) schema(ctx context.Context) error {
	rows, _ := v.db.Query(ctx, schemaSQL, refuseChange, checkVersion)
	var text string
	_, err := pgx.ForEachRow(rows, []any{&text}, func() error {
		v.damage(FlawSchema, 0, "", "%s", text)
		return nil
	})
	return Doing("verify the log's tables", err)
}
