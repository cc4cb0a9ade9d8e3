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

-- How many items of a flow (step_slug is ''), or of one step of it, workers may hold at once (at_once), and how many they
-- may be handed a second (rate), at most burst of them at one moment. coded_*: as the flow's code says, which holds
-- unless somebody has set others (is_set). tokens: how many might have been handed out at filled_at. turns: claims
-- that were, so that each of them changes the row: one with an older view of it is refused then.
create table pgflow.limits (
  flow_slug text not null constraint limits_flow_slug_fkey references pgflow.flows (flow_slug) on delete cascade,
  step_slug text not null default '',
  at_once int constraint at_once_is_positive check (at_once > 0),
  rate float8 constraint rate_is_positive check (rate > 0 and rate <= 1e9),
  burst int constraint burst_is_positive check (burst > 0),
  is_set boolean not null default false,
  coded_at_once int,
  coded_rate float8,
  coded_burst int,
  tokens float8,
  filled_at timestamptz,
  turns bigint not null default 0,
  changed_at timestamptz not null default clock_timestamp(),
  constraint limits_pkey primary key (flow_slug, step_slug)
) with (fillfactor = 50);

-- What was handed out of flows with a limit at once, and may be held still: tasks, and leases of items. Those that are
-- not are removed by the next claim. No foreign keys: whoever claims would wait for whoever settles.
create table pgflow.handed_out (
  flow_slug text not null,
  run_id uuid not null,
  step_slug text not null,
  first_index int not null,
  end_index int not null,
  lease_no int, -- NULL: a task
  constraint handed_out_key unique nulls not distinct (flow_slug, run_id, step_slug, first_index, lease_no)
);

-- Functions whose arguments are others now.
drop function if exists pgflow._take_messages(text, bigint[], int, int, bigint[], text[]);
drop function if exists pgflow._read_fairly(text, text, text, int, int, bigint[], text[]);
drop function if exists pgflow._suspects(text, text, uuid, int, int, text[]);
drop function if exists pgflow._claim_ranges(text, text, uuid, int, bigint[], text[]);
drop function if exists pgflow._next_messages(text, text, text, uuid, int, int, text[]);
