-- Ours: how many runs of each flow that the caller may use have ended, and how; of one flow, or of all. Those that go on
-- are few, and read one by one.
create or replace function pgflow.count_ended_runs(flow_slug text default null)
returns table (flow text, status text, is_cancelled boolean, has_failures boolean, runs bigint)
language sql
stable
security definer
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
as $$
  select r.flow_slug, r.status, c.is_cancelled, f.has_failures, count(*)
  from pgflow.runs r
  cross join lateral (
    select r.status = 'failed' and exists (
      select 1 from pgflow.cancelled_runs c where c.run_id = r.run_id and c.cancelled_at = r.failed_at
    ) as is_cancelled
  ) c
  cross join lateral (
    select r.status = 'completed' and exists (
      select 1 from pgflow.step_states ss where ss.run_id = r.run_id and ss.failed_tasks > 0
    ) as has_failures
  ) f
  where r.status <> 'started'
    and (count_ended_runs.flow_slug is null or r.flow_slug = count_ended_runs.flow_slug)
    and coalesce(r.flow_slug = any ((select pgflow._granted_flows('count_ended_runs'))::text[]), true)
  group by r.flow_slug, r.status, c.is_cancelled, f.has_failures;
$$;
