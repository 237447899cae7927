//go:build linux

package postgres

// giveAll makes dayfly_owner the owner of the database and of everything in it. What only a superuser may own stays
// with ours; what would take part in replication goes. REASSIGN OWNED does not know the objects of the cluster's first
// superuser, so those are listed.
const giveAll = `DO $do$
DECLARE r record;
BEGIN
	FOR r IN SELECT pubname FROM pg_publication LOOP
		EXECUTE format('DROP PUBLICATION %I', r.pubname);
	END LOOP;
	-- One of those would run what the owner wrote whenever our superuser connects.
	FOR r IN SELECT evtname FROM pg_event_trigger WHERE evtevent = 'login' LOOP
		EXECUTE format('DROP EVENT TRIGGER %I', r.evtname);
	END LOOP;
	FOR r IN SELECT evtname FROM pg_event_trigger WHERE evtowner <> 10 LOOP
		EXECUTE format('ALTER EVENT TRIGGER %I OWNER TO dayfly_admin', r.evtname);
	END LOOP;
	FOR r IN SELECT fdwname FROM pg_foreign_data_wrapper WHERE fdwowner <> 10 LOOP
		EXECUTE format('ALTER FOREIGN DATA WRAPPER %I OWNER TO dayfly_admin', r.fdwname);
	END LOOP;
	FOR r IN SELECT rolname FROM pg_roles WHERE oid <> 10 AND rolname !~ '^pg_' AND rolname <> 'dayfly_owner' LOOP
		EXECUTE format('REASSIGN OWNED BY %I TO dayfly_owner', r.rolname);
	END LOOP;
	EXECUTE format('ALTER DATABASE %I OWNER TO dayfly_owner', current_database());
	FOR r IN SELECT nspname FROM pg_namespace n WHERE nspowner = 10 AND nspname !~ '^pg_' AND nspname <> 'information_schema'
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e') LOOP
		EXECUTE format('ALTER SCHEMA %I OWNER TO dayfly_owner', r.nspname);
	END LOOP;
	FOR r IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relowner = 10 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
				AND (d.deptype = 'e' OR c.relkind = 'S' AND d.deptype IN ('a', 'i') AND d.refclassid = 'pg_class'::regclass)) LOOP
		EXECUTE format('ALTER %s %s OWNER TO dayfly_owner', CASE r.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
			WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, r.name);
	END LOOP;
	FOR r IN SELECT t.oid::regtype AS name, t.typtype FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
			WHERE t.typowner = 10 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND t.typtype IN ('b', 'c', 'd', 'e', 'r')
			AND (t.typrelid = 0 OR c.relkind = 'c') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype IN ('e', 'i')) LOOP
		EXECUTE format('ALTER %s %s OWNER TO dayfly_owner', CASE r.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, r.name);
	END LOOP;
	FOR r IN SELECT p.oid::regprocedure AS name, p.prokind FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
			WHERE p.proowner = 10 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i')) LOOP
		EXECUTE format('ALTER ROUTINE %s OWNER TO dayfly_owner', r.name);
	END LOOP;
	FOR r IN SELECT oid FROM pg_largeobject_metadata WHERE lomowner = 10 LOOP
		EXECUTE format('ALTER LARGE OBJECT %s OWNER TO dayfly_owner', r.oid);
	END LOOP;
	FOR r IN SELECT s.srvname FROM pg_foreign_server s WHERE s.srvowner = 10 LOOP
		EXECUTE format('ALTER SERVER %I OWNER TO dayfly_owner', r.srvname);
	END LOOP;
	IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public') THEN
		GRANT ALL ON SCHEMA public TO dayfly_owner;
	END IF;
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'dayfly_loader') THEN
		DROP OWNED BY dayfly_loader; -- what it was allowed to do: it owns nothing any more
	END IF;
END $do$`

// tame takes from all other roles what would let them in or out of the database, and lets the owner act as any of them.
const tame = `DO $do$
DECLARE r record;
BEGIN
	FOR r IN SELECT g.rolname AS role, m.rolname AS member FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
			WHERE m.oid <> 10 AND m.rolname !~ '^pg_' AND (g.rolname ~ '^pg_' OR g.oid = 10) LOOP
		EXECUTE format('REVOKE %I FROM %I', r.role, r.member);
	END LOOP;
	FOR r IN SELECT rolname FROM pg_roles WHERE oid <> 10 AND rolname !~ '^(pg_|dayfly_)' LOOP
		EXECUTE format('ALTER ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD NULL CONNECTION LIMIT -1 VALID UNTIL ''infinity''', r.rolname);
		EXECUTE format('GRANT %I TO dayfly_owner', r.rolname);
	END LOOP;
END $do$`
