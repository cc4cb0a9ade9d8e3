-- Ours: items that failed are tried again, in runs that failed, are completed or go on, and what followed from them is
-- computed again.

-- Removes the result pages that these items are in, which failed and were tolerated: pages hold results of ranges, or
-- of tasks. What of the latter is not tried again is written anew in the end.
create or replace function pgflow._drop_task_results(run_id uuid, step_slug text, task_indexes int[])
returns void
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
  delete from pgflow.pages p
  using (
    select distinct h.first_index
    from unnest(task_indexes) c (i)
    cross join lateral (
      select p.first_index, p.items
      from pgflow.pages p
      where p.run_id = _drop_task_results.run_id
        and p.step_slug = _drop_task_results.step_slug
        and p.is_result
        and p.first_index <= c.i
      order by p.first_index desc
      limit 1
    ) h
    where h.first_index + h.items > c.i
  ) h
  where p.run_id = _drop_task_results.run_id
    and p.step_slug = _drop_task_results.step_slug
    and p.is_result
    and p.first_index = h.first_index;
$$;

-- A map that did not wait for its parent was skipped while that one went on: what was done since is free for it, too.
create or replace function pgflow._catch_up(run_id uuid, step_slug text)
returns void
language sql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  insert into pgflow.ranges (run_id, step_slug, first_index, end_index, lease_no)
  select m.run_id, m.step_slug, lower(u.u), upper(u.u), m.lease_base
  from pgflow.range_maps m
  cross join lateral unnest(
    (
      select coalesce(range_agg(int4range(p.first_index, p.first_index + p.items)), '{}')
      from pgflow.pages p
      where p.run_id = m.run_id and p.step_slug = m.source_step and p.is_result
    ) - (
      select coalesce(range_agg(k.k), '{}') + int4multirange(int4range(m.next_index, m.items))
      from (
        select int4range(p.first_index, p.first_index + p.items)
        from pgflow.pages p
        where p.run_id = m.run_id and p.step_slug = m.step_slug and p.is_result
        union all
        select int4range(g.first_index, g.end_index)
        from pgflow.ranges g
        where g.run_id = m.run_id and g.step_slug = m.step_slug
        union all
        select int4range(t.task_index, t.task_index + 1)
        from pgflow.step_tasks t
        where t.run_id = m.run_id and t.step_slug = m.step_slug
      ) k (k)
    )
  ) u (u)
  where m.run_id = _catch_up.run_id and m.step_slug = _catch_up.step_slug and m.source_step is not null;
$$;

-- A step goes on with its chosen items, and with what was not finished of it. Caller holds the locks of the run and
-- all its steps; what was given the chosen ones is set back already.
create or replace function pgflow._reopen_step(flow_slug text, run_id uuid, plan pgflow.step_retry)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_in_ranges boolean := pgflow._is_in_ranges(_reopen_step.run_id, plan.step_slug);
  v_firsts int[];
  v_counts int[];
begin
  perform pgflow._forget_counts(_reopen_step.run_id, plan.step_slug);
  -- A step that failed before it had items failed by its condition, which is tested again.
  if not v_in_ranges and plan.status = 'failed' and not exists (
    select from pgflow.step_tasks t where t.run_id = _reopen_step.run_id and t.step_slug = plan.step_slug
  ) then
    update pgflow.step_states ss
    set status = 'created', failed_at = null, started_at = null, error_message = null,
        remaining_tasks = null, spawned_tasks = 0, failed_tasks = 0
    where ss.run_id = _reopen_step.run_id and ss.step_slug = plan.step_slug;
    return;
  end if;

  if v_in_ranges then
    perform pgflow._drop_task_results(_reopen_step.run_id, plan.step_slug, plan.chosen);
    if plan.goes_on then
      perform pgflow._catch_up(_reopen_step.run_id, plan.step_slug);
      perform pgflow._reopen_ranges(_reopen_step.run_id, plan.step_slug);
    end if;
  end if;
  perform pgflow._queue_again(
    _reopen_step.flow_slug, _reopen_step.run_id, plan.step_slug,
    plan.chosen || array(
      select t.task_index
      from pgflow.step_tasks t
      where plan.goes_on
        and t.run_id = _reopen_step.run_id
        and t.step_slug = plan.step_slug
        and (t.status in ('cancelled', 'skipped') or (t.status in ('queued', 'started') and t.failed_at is null))
    )
  );

  update pgflow.step_states ss
  set status = 'started',
      started_at = coalesce(ss.started_at, greatest(now(), ss.created_at)),
      completed_at = null,
      failed_at = null,
      skipped_at = null,
      skip_reason = null,
      error_message = null,
      output = null,
      remaining_tasks = ss.initial_tasks - plan.done - plan.kept,
      failed_tasks = plan.kept
  where ss.run_id = _reopen_step.run_id and ss.step_slug = plan.step_slug;
  if plan.goes_on or plan.status <> 'started' then
    perform pgflow._emit_step_event(
      _reopen_step.run_id,
      plan.step_slug,
      'started',
      jsonb_build_object(
        'started_at', now(), 'remaining_tasks', plan.items - plan.done - plan.kept, 'remaining_deps', 0
      )
    );
  end if;

  -- What does not wait for all of it begins anew with what there is.
  if v_in_ranges and plan.was_given then
    perform pgflow._open_ahead(_reopen_step.flow_slug, _reopen_step.run_id, plan.step_slug, plan.items);
    select array_agg(p.first_index), array_agg(p.items) into v_firsts, v_counts
    from pgflow.pages p
    where p.run_id = _reopen_step.run_id and p.step_slug = plan.step_slug and p.is_result;
    if v_firsts is not null then
      perform pgflow._pass_on(_reopen_step.run_id, plan.step_slug, v_firsts, v_counts);
    end if;
  end if;
end;
$$;

-- Tries failed items of a run again, also those that were tolerated: of these steps, with these indexes, with an error
-- that contains one of these texts; NULL: whatever it is. Whether the run has failed, is completed or goes on: it goes
-- on, and steps that were given such an item, as null, are computed again, as is what follows from them. Answers what
-- it did by step, in definition order, and nothing where there is nothing to do, which a second call finds; dry_run:
-- what it would do, and changes nothing.
--   retried: failed items that are tried again; first_indexes: the first ten of them
--   unfinished: items that go on besides them, since the run had failed, or the step was skipped
--   recomputed: items that are computed again from the beginning, 0 where that is not known yet; NULL where the step
--     is not, and of a step that had not begun there is nothing to tell
--   kept, most: items that failed and stay so, and how many the step tolerates: if these are less, the run fails
--     again when the rest of the step is done
create or replace function pgflow.retry_items(
  run_id uuid,
  step_slugs text[] default null,
  item_indexes int4multirange default null,
  error_texts text[] default null,
  dry_run boolean default false
)
returns table (
  step_slug text, status text, retried int, first_indexes int[], unfinished int, recomputed int, kept int, most int
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  v_run pgflow.runs;
  v_plans pgflow.step_retry[];
  v_plan pgflow.step_retry;
  v_reset text[];
  v_hopeless text;
begin
  if dry_run then
    select r.* into v_run from pgflow.runs r where r.run_id = retry_items.run_id;
  else
    select r.* into v_run from pgflow.runs r where r.run_id = retry_items.run_id for update;
  end if;
  if not found then
    raise exception 'There is no run % in this database', retry_items.run_id using errcode = 'PF003';
  end if;
  perform pgflow._require_flow('retry_items', v_run.flow_slug);
  if not dry_run then
    perform 1
    from pgflow.step_states ss
    where ss.run_id = retry_items.run_id
    order by ss.step_slug collate "C"
    for update;
  end if;

  v_plans := array(
    select p
    from pgflow._plan_retry(
      v_run.flow_slug, retry_items.run_id, v_run.status, step_slugs, item_indexes, error_texts
    ) p
  );
  if cardinality(v_plans) = 0 then
    return;
  end if;
  select p.step_slug into v_hopeless
  from unnest(v_plans) p
  where p.kept > p.most and p.unfinished + cardinality(p.chosen) = 0
  limit 1;
  if found then
    raise exception 'Step "%" has failed, and none of its items is to be tried again: run % would fail again at once',
      v_hopeless, retry_items.run_id
      using errcode = 'PF007', hint = 'Try items of that step again, too.';
  end if;

  if not dry_run then
    v_reset := array(select p.step_slug from unnest(v_plans) p where p.is_reset);
    perform pgflow._reset_steps(v_run.flow_slug, retry_items.run_id, v_reset);
    update pgflow.runs r
    set status = 'started', completed_at = null, failed_at = null, output = null
    where r.run_id = retry_items.run_id and r.status <> 'started';
    foreach v_plan in array v_plans loop
      if not v_plan.is_reset then
        perform pgflow._reopen_step(v_run.flow_slug, retry_items.run_id, v_plan);
      end if;
    end loop;
    perform pgflow._recount_steps(v_run.flow_slug, retry_items.run_id, v_reset);
    if v_run.status <> 'started' then
      perform pgflow._emit_run_event(
        retry_items.run_id,
        'started',
        jsonb_build_object(
          'flow_slug', v_run.flow_slug,
          'remaining_steps',
            (select r.remaining_steps from pgflow.runs r where r.run_id = retry_items.run_id),
          'started_at', v_run.started_at
        ),
        'input',
        v_run.input
      );
    end if;
    -- Of some nothing is open: all that failed of them is tolerated by now.
    foreach v_plan in array v_plans loop
      if not v_plan.is_reset and v_plan.items > 0 and v_plan.items = v_plan.done + v_plan.kept then
        perform pgflow._count_done(v_run.flow_slug, retry_items.run_id, v_plan.step_slug, 0, null);
      end if;
    end loop;
    perform pgflow._advance_run(retry_items.run_id);
    perform pg_notify('pgflow_work', v_run.flow_slug);
    if cardinality(v_reset) > 0 then -- whoever holds anything of these looks what is still wanted
      perform pg_notify('pgflow_cancelled', retry_items.run_id::text);
    end if;
  end if;

  return query
  select p.step_slug, p.status, coalesce(cardinality(p.chosen), 0), p.chosen[1:10], p.unfinished,
    case when p.is_reset then coalesce(p.items, 0) end, p.kept, p.most
  from unnest(v_plans) p
  where not p.is_reset or p.status <> 'created';
end;
$$;
