-- Ours: which items of a run would be tried again, and what would follow from it. Nothing is changed here.

-- What one step has of failed items, and of what is done: those that failed for good, tolerated or not, with these
-- indexes and with an error that contains one of these texts (NULL: whatever it is) are chosen.
create or replace function pgflow._failed_items(
  run_id uuid,
  step_slug text,
  in_ranges boolean,
  indexes int4multirange,
  error_texts text[],
  out chosen int[],
  out failed int,
  out done int
)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
#variable_conflict use_column
begin
  select coalesce(
      array_agg(t.task_index order by t.task_index) filter (
        where f.is_failed
          and (indexes is null or t.task_index <@ indexes)
          and (
            error_texts is null
            or exists (select from unnest(error_texts) e where strpos(coalesce(t.error_message, ''), e) > 0)
          )
      ),
      '{}'
    ),
    count(*) filter (where f.is_failed),
    count(*) filter (where t.status = 'completed')
  into chosen, failed, done
  from pgflow.step_tasks t
  cross join lateral (
    select t.status = 'failed' -- or it stalled for good
      or (t.status = 'started' and t.permanently_stalled_at is not null and t.failed_at is not null) as is_failed
  ) f
  where t.run_id = _failed_items.run_id and t.step_slug = _failed_items.step_slug;
  if in_ranges then
    done := (
      select coalesce(sum(p.items), 0)
      from pgflow.pages p
      where p.run_id = _failed_items.run_id and p.step_slug = _failed_items.step_slug and p.is_result
    ) + (
      select count(*) filter (where t.status = 'completed' and not h.has_result)
        - count(*) filter (where t.status <> 'completed' and h.has_result)
      from pgflow.step_tasks t
      cross join lateral (
        select pgflow._has_result(t.run_id, t.step_slug, t.task_index) as has_result
        offset 0
      ) h
      where t.run_id = _failed_items.run_id and t.step_slug = _failed_items.step_slug
    );
  end if;
end;
$$;

-- Of each step that would change what would become of it, in definition order. step_slugs: whose items are looked
-- for; NULL: those of all. Where no item is found there is nothing to do, unless none was asked for in particular and
-- the run has failed: then it goes on.
create or replace function pgflow._plan_retry(
  flow_slug text,
  run_id uuid,
  run_status text,
  step_slugs text[],
  indexes int4multirange,
  error_texts text[]
)
returns setof pgflow.step_retry
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_step record;
  v_found record;
  v_goes_on boolean;
  v_some boolean := run_status = 'failed' and step_slugs is null and indexes is null and error_texts is null;
  v_plan pgflow.step_retry;
  v_plans pgflow.step_retry[] := '{}';
  v_given boolean;
begin
  for v_step in
    select ss.step_slug, ss.status, ss.initial_tasks, pgflow._is_in_ranges(ss.run_id, ss.step_slug) as in_ranges,
      _plan_retry.step_slugs is null or ss.step_slug = any (_plan_retry.step_slugs) as is_named
    from pgflow.step_states ss
    where ss.run_id = _plan_retry.run_id
      and (
        (ss.status in ('started', 'completed') and ss.failed_tasks > 0)
        or (ss.status in ('started', 'failed') and run_status = 'failed')
        or (ss.status = 'skipped' and ss.skip_reason = 'handler_failed')
      )
  loop
    select * into v_found
    from pgflow._failed_items(
      _plan_retry.run_id, v_step.step_slug, v_step.in_ranges,
      case when v_step.is_named then indexes else '{}' end, error_texts
    );
    v_goes_on := v_step.status = 'skipped' or (run_status = 'failed' and v_step.status <> 'completed');
    continue when cardinality(v_found.chosen) = 0 and (not v_goes_on or v_step.status = 'skipped');

    v_some := v_some or cardinality(v_found.chosen) > 0;
    v_given := cardinality(v_found.chosen) > 0 and (
      v_step.status in ('completed', 'skipped')
      or (v_step.in_ranges and exists (
        select from unnest(v_found.chosen) c where pgflow._has_result(_plan_retry.run_id, v_step.step_slug, c)
      ))
    );
    v_plan := row(
      v_step.step_slug, v_step.status, v_step.initial_tasks, v_found.chosen, v_goes_on,
      case when v_goes_on then v_step.initial_tasks - v_found.done - v_found.failed else 0 end,
      v_found.done,
      v_found.failed - cardinality(v_found.chosen),
      pgflow._tolerated_failures(_plan_retry.flow_slug, v_step.step_slug, v_step.initial_tasks),
      v_given,
      false
    );
    v_plans := v_plans || v_plan;
  end loop;
  if not v_some then
    return;
  end if;

  return query
  with following as (
    select f.slug
    from unnest(
      pgflow._following(
        _plan_retry.flow_slug, array(select p.step_slug from unnest(v_plans) p where p.was_given)
      )
    ) f (slug)
  ), steps as (
    select p.*
    from unnest(v_plans) p
    where p.step_slug not in (select f.slug from following f)
    union all
    select ss.step_slug, ss.status, ss.initial_tasks, '{}', false, 0, 0, 0, 0, false, true
    from pgflow.step_states ss
    where ss.run_id = _plan_retry.run_id and ss.step_slug in (select f.slug from following f)
  )
  select x.*
  from steps x
  join pgflow.steps s on s.flow_slug = _plan_retry.flow_slug and s.step_slug = x.step_slug
  order by s.step_index;
end;
$$;
