-- Ours: what runs and steps have been before they were tried again, which their own rows do not tell any more, so
-- that no event is lost to whoever looks later. Written by retries only, and gone with the run.
-- step_slug: NULL of the run itself. covers_start: that the present life of the run or step has begun is told here.
create table pgflow.past_events (
  run_id uuid not null references pgflow.runs (run_id) on delete cascade,
  event_id bigint generated always as identity,
  step_slug text,
  status text not null,
  at timestamptz not null,
  covers_start boolean not null,
  constraint past_events_pkey primary key (run_id, event_id)
);
