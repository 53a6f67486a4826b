-- A role for servers that may append to the log, and may never change it.
--
-- The tables belong to the role that runs `medilab-webhooks migrate`. Serve with another one, whose
-- rights are these, and not even a thief of the server's password can rewrite history: the triggers
-- that refuse UPDATE, DELETE and TRUNCATE can only be taken away by the owner.
--
--   psql "$OWNER_URL" -v role=medilab_service -f docs/roles.sql
--
-- Run it again after every migrate: new tables need rights too. The role is made before, as in
-- CREATE ROLE medilab_service LOGIN PASSWORD '...'. Run `projections rebuild`, `audit verify`, `archive`
-- and `keys encrypt` as the owner: they make tables, or change the log.

GRANT USAGE ON SCHEMA medilab TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA medilab TO :"role";
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA medilab TO :"role";
REVOKE UPDATE, DELETE, TRUNCATE ON medilab.events, medilab.seals FROM :"role";
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON medilab.archiving, medilab.resealed, medilab.unencrypted FROM :"role";
