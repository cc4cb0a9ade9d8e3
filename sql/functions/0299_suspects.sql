-- Ours: suspects, which workers died with twice or more: what a worker may hold of them, and beside them.

-- Whether a worker holds anything that others died with twice: items of this flow, or a range.
create or replace function pgflow._holds_suspect(flow_slug text, worker_id uuid)
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
  select exists (
    select 1 from pgflow.ranges g where g.worker_id = _holds_suspect.worker_id and g.deaths >= 2
  ) or exists (
    select 1
    from pgflow.step_tasks t
    where t.flow_slug = _holds_suspect.flow_slug
      and t.worker_deaths >= 2
      and t.status = 'started'
      and t.last_worker_id = _holds_suspect.worker_id
      and t.condemned is not true
  );
$$;

-- Whether a worker holds a task that has to be run alone: it gets nothing else meanwhile. Every claim asks: plpgsql
-- keeps the plan, which functions of sql do not before PostgreSQL 18.
create or replace function pgflow._is_to_be_alone(flow_slug text, worker_id uuid)
returns boolean
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return exists (
    select 1
    from pgflow.step_tasks t
    where t.flow_slug = _is_to_be_alone.flow_slug
      and t.worker_deaths >= 2
      and t.status = 'started'
      and t.last_worker_id = _is_to_be_alone.worker_id
      and not t.condemned
  );
end;
$$;

-- The queued suspects of a flow's queue, and of them what this worker may have: all that are condemned, which it
-- only has to fail, and one other, unless it holds one already; if it dies now, that one is to blame. Those
-- that most workers died with come first. Of but_steps and but_runs it gets none, and where of_run is given, only of
-- that run. What has to be run alone is for a
-- worker that holds nothing; after ten seconds, in which none came, for any.
create or replace function pgflow._suspects(
  flow_slug text,
  queue_name text,
  worker_id uuid,
  qty int,
  lease_seconds int,
  but_steps text[],
  but_runs uuid[],
  of_run uuid default null,
  out queued bigint[],
  out taken bigint[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_open bigint[];
  v_condemned bigint[];
  v_alone bigint[];
begin
  select array_agg(t.message_id order by t.worker_deaths desc, t.message_id),
    array_agg(t.message_id order by t.worker_deaths desc, t.message_id)
      filter (where t.condemned is not true and t.is_wanted),
    array_agg(t.message_id) filter (where t.condemned and t.is_wanted),
    array_agg(t.message_id) filter (
      where not t.condemned and t.last_requeued_at > clock_timestamp() - interval '10 seconds'
    )
  into queued, v_open, v_condemned, v_alone
  from (
    select t.message_id, t.worker_deaths, t.condemned, t.last_requeued_at,
      (but_runs is null or t.run_id <> all (but_runs)) and (of_run is null or t.run_id = of_run) as is_wanted
    from pgflow.step_tasks t
    where t.flow_slug = _suspects.flow_slug
      and t.worker_deaths >= 2
      and t.queue_name = _suspects.queue_name
      and (but_steps is null or t.step_slug <> all (but_steps))
      and t.status = 'queued'
      and t.message_id is not null
  ) t;
  if queued is null then
    return;
  end if;

  if v_condemned is not null then
    taken := pgflow._take_messages(_suspects.queue_name, v_condemned, qty, lease_seconds, null);
  end if;
  if coalesce(cardinality(taken), 0) < qty
    and not pgflow._holds_suspect(_suspects.flow_slug, _suspects.worker_id)
  then
    if v_alone is not null
      and not exists (select 1 from pgflow.ranges g where g.worker_id = _suspects.worker_id)
      and not exists (
        select 1 from pgflow._tasks_held(_suspects.queue_name, array[_suspects.worker_id])
      )
    then
      v_alone := null;
    end if;
    taken := coalesce(taken, '{}') || coalesce(
      pgflow._take_messages(
        _suspects.queue_name,
        array(
          select u.id
          from unnest(v_open) with ordinality u (id, n)
          where u.id <> all (coalesce(v_alone, '{}'))
          order by u.n
        ),
        1,
        lease_seconds,
        null
      ),
      '{}'
    );
  end if;
end;
$$;
