-- Flows and runs of which nothing new is claimed, until somebody resumes them. run_id: NULL of the flow as a whole.
create table pgflow.pauses (
  flow_slug text not null constraint pauses_flow_slug_fkey references pgflow.flows (flow_slug) on delete cascade,
  run_id uuid constraint pauses_run_id_fkey references pgflow.runs (run_id) on delete cascade,
  paused_at timestamptz not null default clock_timestamp(),
  reason text
);
create unique index idx_pauses_flow on pgflow.pauses (flow_slug) where run_id is null;
create unique index idx_pauses_run on pgflow.pauses (run_id) where run_id is not null;
create index idx_pauses_flow_slug on pgflow.pauses (flow_slug);

-- Functions whose arguments are others now.
drop function if exists pgflow._take_messages(text, bigint[], int, int, bigint[], text[]);
drop function if exists pgflow._read_fairly(text, text, text, int, int, bigint[], text[]);
drop function if exists pgflow._suspects(text, text, uuid, int, int, text[]);
