-- The clinic's own tables. Each row counts its changes in revision; each change is one event.
CREATE SCHEMA IF NOT EXISTS clinic;

-- What has been done: the next step begins where the last one that was committed ended.
CREATE TABLE IF NOT EXISTS clinic.progress (
	seed bigint PRIMARY KEY, -- of all that is made up
	step bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS clinic.users (
	user_id bigint PRIMARY KEY, name text NOT NULL, role text NOT NULL, department text NOT NULL,
	status text NOT NULL, revision int NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS clinic.patients (
	patient_id bigint PRIMARY KEY, name text NOT NULL, sex text NOT NULL, birth_date date NOT NULL, phone text NOT NULL, department text NOT NULL,
	status text NOT NULL, revision int NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS clinic.appointments (
	appointment_id bigint PRIMARY KEY, patient_id bigint NOT NULL REFERENCES clinic.patients, department text NOT NULL,
	service text NOT NULL, starts_at timestamptz NOT NULL, status text NOT NULL, revision int NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS clinic.queue (
	entry_id bigint PRIMARY KEY, patient_id bigint NOT NULL REFERENCES clinic.patients, number text NOT NULL, room text NOT NULL,
	status text NOT NULL, revision int NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS clinic.visits (
	visit_id bigint PRIMARY KEY, patient_id bigint NOT NULL REFERENCES clinic.patients, department text NOT NULL, room text NOT NULL,
	status text NOT NULL, revision int NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS clinic.payments (
	payment_id bigint PRIMARY KEY, patient_id bigint NOT NULL REFERENCES clinic.patients, amount int NOT NULL, currency text NOT NULL DEFAULT 'RUB',
	method text NOT NULL, status text NOT NULL, revision int NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS clinic.backups (
	backup_id bigint PRIMARY KEY, kind text NOT NULL DEFAULT 'full', status text NOT NULL, revision int NOT NULL DEFAULT 1
);

CREATE TABLE IF NOT EXISTS clinic.maintenance (
	maintenance_id bigint PRIMARY KEY, reason text NOT NULL, status text NOT NULL, revision int NOT NULL DEFAULT 1
);
