-- Functions whose arguments are others now.
drop function if exists pgflow._take_messages(text, bigint[], int, int, bigint[]);
drop function if exists pgflow._read_fairly(text, text, text, int, int, bigint[]);
drop function if exists pgflow._suspects(text, text, uuid, int, int);
drop function if exists pgflow._next_messages(text, text, text, uuid, int, int);
drop function if exists pgflow._claim_ranges(text, text, uuid, int, bigint[]);
drop function if exists pgflow.claim_work(text, uuid, int, int, bigint[], int);

-- Steps that came to a flow when it had runs: code that does not know them is older than they are.
create table pgflow.added_steps (
  flow_slug text not null,
  step_slug text not null,
  added_at timestamptz not null default now(),
  constraint added_steps_pkey primary key (flow_slug, step_slug),
  constraint added_steps_step_fkey foreign key (flow_slug, step_slug)
    references pgflow.steps (flow_slug, step_slug) on delete cascade
);
