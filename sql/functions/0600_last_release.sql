-- Ours: what functions of the last release call that has other arguments now. A call that was under way when the
-- schema was upgraded goes on in the body that it began with: without these, the worker that made it would end.
-- In that release a flow's queue had the flow's slug.

create or replace function pgflow._take_messages(flow_slug text, ids bigint[], qty int, lease_seconds int)
returns bigint[]
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgflow._take_messages(lower(flow_slug), ids, qty, lease_seconds, null); $$;

create or replace function pgflow._read_fairly(flow_slug text, qty int, lease_seconds int)
returns bigint[]
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgflow._read_fairly(flow_slug, lower(flow_slug), null, qty, lease_seconds, '{}'); $$;

-- With the columns that the answer had then.
create or replace function pgflow._claim(flow_slug text, msg_ids bigint[], worker_id uuid)
returns table (
  run_id uuid,
  step_slug text,
  task_index int,
  msg_id bigint,
  attempt int,
  input jsonb,
  flow_input jsonb,
  timeout int
)
language sql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  select c.run_id, c.step_slug, c.task_index, c.msg_id, c.attempt, c.input, c.flow_input, c.timeout
  from pgflow._claim(_claim.flow_slug, _claim.msg_ids, _claim.worker_id, lower(_claim.flow_slug)) c;
$$;

create or replace function pgflow._archive_open_messages(run_id uuid, step_slugs text[] default null)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
  select pgflow._end_open_tasks(
    run_id, case when step_slugs is null then 'cancelled' else 'skipped' end, step_slugs
  );
$$;

create or replace function pgflow._archive_task_messages(
  flow_slug text,
  run_id uuid,
  step_slug text,
  task_indexes int[]
)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$ select pgflow._archive_task_messages(run_id, step_slug, task_indexes); $$;
