-- Labels of runs, of the caller's choosing. They go with their run. started_at is the run's, which never changes:
-- so the newest runs of a tag are found by the index alone.
create table pgflow.run_tags (
  run_id uuid not null constraint run_tags_run_id_fkey references pgflow.runs (run_id) on delete cascade,
  tag text not null,
  started_at timestamptz not null,
  constraint run_tags_pkey primary key (run_id, tag),
  constraint tag_is_a_label check (length(tag) <= 64 and tag collate "C" ~ '^[A-Za-z0-9][A-Za-z0-9._:/=@+-]*$')
);
create index idx_run_tags_newest on pgflow.run_tags (tag, started_at, run_id);

-- Runs that somebody ended by cancel_run: those whose run failed at that very moment, and was not tried again since.
create table pgflow.cancelled_runs (
  run_id uuid not null constraint cancelled_runs_pkey primary key
    constraint cancelled_runs_run_id_fkey references pgflow.runs (run_id) on delete cascade,
  cancelled_at timestamptz not null,
  reason text
);

-- What the counters of a step that has had failures do not tell, so that nobody has to count tasks: attempts that
-- ended without a result; failed tasks that are among remaining_tasks still, since they ended the step; and what was
-- left when the step was skipped. No foreign key: see functions/0610_pages_of_runs.sql. It is known of runs that were
-- started since.
create table pgflow.step_counts (
  run_id uuid not null,
  step_slug text not null,
  lost_attempts bigint not null default 0,
  uncounted_failures int not null default 0,
  left_tasks int,
  constraint step_counts_pkey primary key (run_id, step_slug)
) with (fillfactor = 70);
alter table pgflow.installation add column attempts_counted_since timestamptz not null default clock_timestamp();

-- Whoever looks for a key need not name the flow.
create index idx_run_keys_key on pgflow.run_keys (key);

-- Pages of runs, newest first.
create index idx_runs_newest on pgflow.runs (started_at, run_id);
create index idx_runs_newest_of_flow on pgflow.runs (flow_slug, started_at, run_id);
