-- What workers tell of themselves and of the time that items take. No foreign keys: what belongs to a run or to a
-- worker goes with it by triggers (functions/0696_telemetry_removal.sql).

-- One row for each process of a worker, which may have several ids in pgflow.workers: one for each queue that it
-- reads, and new ones for those that it gave up. role_name: who told of it, and may go on to. report_no: the last
-- report that was recorded. What follows state_at is how things were then; lane_states is an array of objects.
create table pgflow.worker_processes (
  process_id uuid not null constraint worker_processes_pkey primary key,
  role_name name not null,
  report_no bigint not null,
  host text not null,
  pid int not null,
  version text not null,
  executor text not null,
  lanes int not null,
  labels text[] not null,
  flows text[] not null,
  started_at timestamptz not null,
  state_at timestamptz,
  busy_lanes int,
  utilisation float8,
  cpu float8,
  rss bigint,
  claimed int,
  unsettled int,
  lane_states jsonb not null default '[]'
) with (fillfactor = 50);

alter table pgflow.workers add column process_id uuid;
create index idx_workers_process on pgflow.workers (process_id) where process_id is not null;

-- The times of a step's items, as one process of a worker has seen them. counts[n]: those in bucket n - 1
-- (pgflow.time_bucket_edge). The slowest are in order, at most ten.
create table pgflow.step_times (
  run_id uuid not null,
  step_slug text not null,
  process_id uuid not null,
  items bigint not null,
  failed bigint not null,
  seconds float8 not null,
  counts bigint[] not null,
  slowest_indexes int[] not null,
  slowest_seconds float8[] not null,
  first_at timestamptz not null,
  last_at timestamptz not null,
  constraint step_times_pkey primary key (run_id, step_slug, process_id)
) with (fillfactor = 50);

-- What a lane did and when: one or more chunks of one step. seconds: that handlers ran meanwhile.
create table pgflow.lane_spans (
  span_no bigint generated always as identity,
  run_id uuid not null,
  process_id uuid not null,
  lane int not null,
  step_slug text not null,
  first_index int not null,
  items int not null,
  failed int not null,
  outcome text not null,
  seconds float8 not null,
  started_at timestamptz not null,
  ended_at timestamptz not null,
  constraint lane_spans_pkey primary key (run_id, process_id, span_no),
  constraint outcome_is_known check (outcome in ('completed', 'failed', 'died'))
);
