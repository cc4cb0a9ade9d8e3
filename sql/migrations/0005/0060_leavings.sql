-- Runs that were pruned and are known to nobody any more, of which tasks or pages are left: these go many thousands
-- at a time, each in a transaction of its own.
create table pgflow.leavings (
  run_id uuid not null constraint leavings_pkey primary key,
  flow_slug text not null,
  pruned_at timestamptz not null default clock_timestamp()
);
