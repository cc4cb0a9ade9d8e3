-- Runtime tables (contract sections 2.4 to 2.6).
create table pgflow.runs (
  run_id uuid primary key not null default gen_random_uuid(),
  flow_slug text not null constraint runs_flow_slug_fkey references pgflow.flows (flow_slug),
  status text not null default 'started',
  input jsonb not null,
  output jsonb,
  remaining_steps int not null default 0 constraint runs_remaining_steps_check check (remaining_steps >= 0),
  started_at timestamptz not null default now(),
  completed_at timestamptz,
  failed_at timestamptz,
  constraint status_is_valid check (status in ('started', 'completed', 'failed')),
  constraint completed_at_or_failed_at check (not (completed_at is not null and failed_at is not null)),
  constraint completed_at_is_after_started_at check (completed_at is null or completed_at >= started_at),
  constraint failed_at_is_after_started_at check (failed_at is null or failed_at >= started_at)
) with (fillfactor = 70);

create index idx_runs_flow_slug on pgflow.runs (flow_slug);
create index idx_runs_status on pgflow.runs (status);
create index idx_runs_started on pgflow.runs (flow_slug, started_at) where status = 'started';

-- Ours: among the running runs of a flow, those of the highest priority are claimed first. Runs without
-- a row have priority 0. A table of its own because the row type of runs is the contract's.
create table pgflow.run_priorities (
  run_id uuid primary key references pgflow.runs (run_id) on delete cascade,
  priority int not null
);

-- spawned_tasks is ours: how many task rows exist so far. A map larger than one spawn window gets its
-- tasks window by window; remaining_tasks counts all of them from the start. failed_tasks (ours) counts
-- the failed tasks that the step's policy tolerated.
create table pgflow.step_states (
  flow_slug text not null references pgflow.flows (flow_slug),
  run_id uuid not null references pgflow.runs (run_id),
  step_slug text not null,
  status text not null default 'created',
  remaining_tasks int,
  initial_tasks int constraint step_states_initial_tasks_check check (initial_tasks is null or initial_tasks >= 0),
  remaining_deps int not null default 0
    constraint step_states_remaining_deps_check check (remaining_deps >= 0),
  output jsonb,
  error_message text,
  skip_reason text,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  skipped_at timestamptz,
  spawned_tasks int not null default 0,
  failed_tasks int not null default 0,
  constraint step_states_pkey primary key (run_id, step_slug),
  constraint step_states_flow_slug_step_slug_fkey
    foreign key (flow_slug, step_slug) references pgflow.steps (flow_slug, step_slug),
  constraint status_is_valid check (status in ('created', 'started', 'completed', 'failed', 'skipped')),
  constraint status_and_remaining_tasks_match check (status <> 'completed' or remaining_tasks = 0),
  constraint remaining_tasks_state_consistency
    check (remaining_tasks is null or status not in ('created', 'skipped')),
  constraint initial_tasks_known_when_started check (status <> 'started' or initial_tasks is not null),
  constraint output_only_for_completed_or_null check (output is null or status = 'completed'),
  constraint skip_reason_matches_status check ((status = 'skipped') = (skip_reason is not null)),
  constraint completed_at_or_failed_at_or_skipped_at
    check (num_nonnulls(completed_at, failed_at, skipped_at) <= 1),
  constraint started_at_is_after_created_at check (started_at is null or started_at >= created_at),
  constraint completed_at_is_after_started_at check (completed_at is null or completed_at >= started_at),
  constraint failed_at_is_after_started_at check (failed_at is null or failed_at >= started_at),
  constraint skipped_at_is_after_created_at check (skipped_at is null or skipped_at >= created_at)
) with (fillfactor = 70);

create index idx_step_states_ready on pgflow.step_states (run_id, status, remaining_deps)
  where status = 'created' and remaining_deps = 0;
create index idx_step_states_failed on pgflow.step_states (run_id, step_slug) where status = 'failed';
create index idx_step_states_skipped on pgflow.step_states (run_id, step_slug) where status = 'skipped';
create index idx_step_states_flow_slug on pgflow.step_states (flow_slug);
create index idx_step_states_run_id on pgflow.step_states (run_id);

-- One row a task, and by far the most rows, so it is kept lean: two indexes whose columns never change
-- (every update is HOT) and no foreign keys checked per row. The rows are written by the engine only,
-- which holds their parents' locks; the trigger forget_deleted_workers keeps what "on delete set null" promises.
-- input (ours) is the element of a map task, stored when the task is spawned; NULL = not stored.
-- lease_until (ours) is set when a worker extends its lease past the claim's visibility timeout.
create table pgflow.step_tasks (
  flow_slug text not null,
  run_id uuid not null,
  step_slug text not null,
  message_id bigint,
  task_index int not null default 0,
  status text not null default 'queued',
  attempts_count int not null default 0,
  error_message text,
  output jsonb,
  queued_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz,
  failed_at timestamptz,
  last_worker_id uuid,
  requeued_count int not null default 0,
  last_requeued_at timestamptz,
  permanently_stalled_at timestamptz,
  lease_until timestamptz,
  input jsonb,
  constraint step_tasks_pkey primary key (run_id, step_slug, task_index),
  constraint valid_status check (status in ('queued', 'started', 'completed', 'failed')),
  constraint output_valid_only_for_completed check (output is null or status in ('completed', 'failed')),
  constraint attempts_count_nonnegative check (attempts_count >= 0),
  constraint completed_at_or_failed_at check (not (completed_at is not null and failed_at is not null)),
  constraint completed_at_is_after_queued_at check (completed_at is null or completed_at >= queued_at),
  constraint failed_at_is_after_queued_at check (failed_at is null or failed_at >= queued_at),
  constraint started_at_is_after_queued_at check (started_at is null or started_at >= queued_at),
  constraint completed_at_is_after_started_at check (completed_at is null or completed_at >= started_at),
  constraint failed_at_is_after_started_at check (failed_at is null or failed_at >= started_at)
) with (
  fillfactor = 38, -- room for the three versions of a row, so that no update touches an index
  autovacuum_vacuum_scale_factor = 0.1,
  autovacuum_analyze_scale_factor = 0.1
);

create index idx_step_tasks_message_id on pgflow.step_tasks (message_id);
