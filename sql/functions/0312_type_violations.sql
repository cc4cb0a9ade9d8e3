-- A single step whose output cannot be mapped over (contract section 8, TYPE_VIOLATION).

-- The slug of a dependent map whose size this single step's output should tell but cannot.
create or replace function pgflow._map_starved_by(flow_slug text, run_id uuid, step_slug text, output jsonb)
returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select child.step_slug
  from pgflow.deps d
  join pgflow.steps child
    on child.flow_slug = d.flow_slug and child.step_slug = d.step_slug and child.step_type = 'map'
  join pgflow.step_states ss
    on ss.run_id = _map_starved_by.run_id and ss.step_slug = child.step_slug and ss.initial_tasks is null
  where d.flow_slug = _map_starved_by.flow_slug
    and d.dep_slug = _map_starved_by.step_slug
    and (_map_starved_by.output is null or jsonb_typeof(_map_starved_by.output) <> 'array')
  order by child.step_index
  limit 1;
$$;

-- A single step whose output cannot be mapped over ends its run, whatever its options say. The run's event
-- comes before the step's (contract). Caller holds the locks of the run and the step.
create or replace function pgflow._fail_by_type_violation(
  flow_slug text,
  run_id uuid,
  step_slug text,
  output jsonb,
  child_slug text
)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_produced text := coalesce(jsonb_typeof(output), 'null');
  v_error text := format(
    '[TYPE_VIOLATION] Map step %s expects array input but dependency %s produced %s',
    child_slug, step_slug, v_produced
  );
  v_failed_at timestamptz;
begin
  update pgflow.step_tasks t
  set status = 'failed',
      failed_at = greatest(now(), t.started_at),
      output = _fail_by_type_violation.output,
      error_message = format('[TYPE_VIOLATION] Produced %s instead of array', v_produced)
  where t.run_id = _fail_by_type_violation.run_id
    and t.step_slug = _fail_by_type_violation.step_slug
    and t.task_index = 0;

  update pgflow.runs r
  set status = 'failed', failed_at = greatest(now(), r.started_at)
  where r.run_id = _fail_by_type_violation.run_id
  returning r.failed_at into v_failed_at;
  perform pgflow._emit_run_event(
    _fail_by_type_violation.run_id,
    'failed',
    jsonb_build_object('flow_slug', _fail_by_type_violation.flow_slug, 'failed_at', v_failed_at)
  );

  update pgflow.step_states ss
  set status = 'failed', failed_at = greatest(now(), ss.started_at), error_message = v_error,
      failed_tasks = ss.failed_tasks + 1
  where ss.run_id = _fail_by_type_violation.run_id and ss.step_slug = _fail_by_type_violation.step_slug
  returning ss.failed_at into v_failed_at;
  perform pgflow._emit_step_event(
    _fail_by_type_violation.run_id,
    _fail_by_type_violation.step_slug,
    'failed',
    jsonb_build_object('error_message', v_error, 'failed_at', v_failed_at)
  );

  perform pgflow._note_counts(_fail_by_type_violation.run_id, _fail_by_type_violation.step_slug, 1, 1);
  perform pgflow._end_open_tasks(_fail_by_type_violation.run_id, 'cancelled');
  perform pgflow._archive_task_message(
    _fail_by_type_violation.run_id, _fail_by_type_violation.step_slug, 0
  );
end;
$$;
