-- Ours: which items of a run failed for good, in the order in which they did, for whoever follows along.

-- Those that failed after the one at this place; from the beginning where it is null. error: how it begins.
create or replace function pgflow.failed_since(
  run_id uuid,
  after_time timestamptz default null,
  after_step text default null,
  after_index int default null,
  max_rows int default 1000
)
returns table (step_slug text, task_index int, attempts int, failed_at timestamptz, error text)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pgflow._require_flow(
    'failed_since', (select r.flow_slug from pgflow.runs r where r.run_id = failed_since.run_id)
  );
  return query
  select t.step_slug, t.task_index, t.attempts_count, t.failed_at, 
    left(t.error_message, 8000)
  from pgflow.step_tasks t
  where t.run_id = failed_since.run_id
    and t.status = 'failed'
    and t.failed_at is not null
    and (
      failed_since.after_time is null
      or (t.failed_at, t.step_slug, t.task_index)
        > (failed_since.after_time, failed_since.after_step, failed_since.after_index)
    )
  order by t.failed_at, t.step_slug, t.task_index
  limit least(greatest(max_rows, 1), 10000);
end;
$$;
