-- Items that are loaded page by page before their run is started: its root maps have them from pages of the run's
-- that belong to no step (step_slug ''). What was never started is dropped with its row.
create table pgflow.loads (
  run_id uuid not null constraint loads_pkey primary key,
  flow_slug text not null,
  items int not null default 0,
  opened_at timestamptz not null default clock_timestamp(),
  touched_at timestamptz not null default clock_timestamp(),
  is_started boolean not null default false
);

create index idx_loads_touched on pgflow.loads (touched_at) where not is_started;
