-- start_tasks (contract 0.17 section 5.2).

-- A task whose message is gone must not be worked on: then the claim fails as a whole.
create or replace function pgflow._all_leased(updated int, claimed int)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if updated < claimed then
    raise exception
      'invalid input syntax for type integer: "start_tasks(): visibility updated % of % claimed messages"',
      updated, claimed
      using errcode = 'invalid_text_representation';
  end if;
  return true;
end;
$$;

-- Hands the tasks of these messages to a worker: their inputs, and a lease as long as they may take (contract
-- section 7).
create or replace function pgflow.start_tasks(
  flow_slug text,
  msg_ids bigint[],
  worker_id uuid,
  queue_name text,
  step_slug text default null
)
returns setof pgflow.step_task_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_mode text;
  v_ids bigint[];
  v_is_limited boolean;
  v_part record;
begin
  select f.queue_mode into v_mode from pgflow.flows f where f.flow_slug = start_tasks.flow_slug;
  if not found then
    return;
  end if;
  if v_mode = 'flow' then
    if start_tasks.step_slug is not null then
      raise exception 'Flow "%" uses the default flow queue: a step selector is not allowed.',
        start_tasks.flow_slug
        using detail = format('Step "%s" was supplied, but flow queue mode has no per-step queues.',
                start_tasks.step_slug),
              hint = 'Omit step_slug to claim flow-wide tasks.';
    end if;
  elsif start_tasks.step_slug is null then
    raise exception 'Flow "%" uses per-step queues: an exact step_slug is required to claim tasks.',
      start_tasks.flow_slug
      using detail = format('Queue "%s" is a private step queue; a claim without a step selector could mix steps.',
              start_tasks.queue_name),
            hint = 'Pass the exact step_slug of the polled step; direct SQL cannot obtain flow-wide claims in step mode.';
  elsif not exists (
    select 1 from pgflow.steps s
    where s.flow_slug = start_tasks.flow_slug
      and s.step_slug = start_tasks.step_slug
      and s.queue_name = start_tasks.queue_name
  ) then
    raise exception 'Step "%" does not route to queue "%" in flow "%".',
      start_tasks.step_slug, start_tasks.queue_name, start_tasks.flow_slug
      using detail = 'The step selector must match a persisted step route (flow_slug, step_slug, queue_name) exactly.',
            hint = 'Poll the queue recorded for this step and pass its exact canonical name and spelling.';
  end if;

  v_ids := pgflow._without_paused(
    start_tasks.flow_slug, start_tasks.queue_name, start_tasks.msg_ids,
    pgflow._barred_steps(start_tasks.flow_slug, start_tasks.worker_id)
  );
  v_is_limited := pgflow._is_limited(start_tasks.flow_slug);
  if v_is_limited then
    select w.kept into v_ids
    from pgflow._open_rooms(start_tasks.flow_slug, start_tasks.queue_name, null) o
    cross join lateral pgflow._within_rooms(start_tasks.queue_name, v_ids, o.steps, o.rooms) w;
  end if;
  return query
  with claimed as materialized (
    select c.*
    from pgflow._claim(
      start_tasks.flow_slug, v_ids, start_tasks.worker_id, start_tasks.queue_name, start_tasks.step_slug
    ) c
  ), leased as materialized (
    select count(v.msg_id)::int as updated, coalesce(max(a.n), 0)::int as claimed
    from (
      select count(*) as n, array_agg(c.msg_id) as ids, array_agg(least(c.timeout, 2147483645) + 2) as seconds from claimed c
    ) a
    left join lateral pgflow.set_vt_batch(start_tasks.queue_name, a.ids, a.seconds) v on true
  )
  select start_tasks.flow_slug, c.run_id, c.step_slug, c.input, c.msg_id, c.task_index, c.flow_input
  from leased l
  cross join claimed c
  where pgflow._all_leased(l.updated, l.claimed);
  if v_is_limited then
    select * into v_part
    from pgflow._note_tasks(start_tasks.flow_slug, start_tasks.queue_name, start_tasks.worker_id, v_ids);
    perform pgflow._use_rooms(start_tasks.flow_slug, v_part.steps, v_part.counts);
  end if;
end;
$$;

-- As clients of before the queue modes call it.
create or replace function pgflow.start_tasks(flow_slug text, msg_ids bigint[], worker_id uuid)
returns setof pgflow.step_task_record
language sql
set search_path = pg_catalog, pg_temp
as $$
  select t.*
  from pgflow.start_tasks(
    start_tasks.flow_slug, start_tasks.msg_ids, start_tasks.worker_id, lower(start_tasks.flow_slug)
  ) t;
$$;
