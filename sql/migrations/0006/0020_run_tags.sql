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

-- Pages of runs, newest first.
create index idx_runs_newest on pgflow.runs (started_at, run_id);
create index idx_runs_newest_of_flow on pgflow.runs (flow_slug, started_at, run_id);
