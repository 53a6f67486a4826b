-- A role for servers that may append to the log, and may never change it.
--
-- The tables belong to the role that runs `medilab-webhooks migrate`. Serve with another one, whose
-- rights are these, and not even a thief of the server's password can rewrite history: the triggers
-- that refuse UPDATE, DELETE and TRUNCATE can only be taken away by the owner.
--
--   psql "$OWNER_URL" -v role=medilab_service -f docs/roles.sql
--
-- Run it again after every migrate: new tables need rights too. The role is made before, as in
-- CREATE ROLE medilab_service LOGIN PASSWORD '...'. Rebuilding, verifying and archiving make
-- tables: run `projections rebuild`, `audit verify` and `archive` as the owner. So is `keys encrypt`.

GRANT USAGE ON SCHEMA medilab TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA medilab TO :"role";
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA medilab TO :"role";
REVOKE UPDATE, DELETE, TRUNCATE ON medilab.events, medilab.seals FROM :"role";
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON medilab.archiving, medilab.resealed FROM :"role";
