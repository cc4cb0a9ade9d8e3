-- Ours: the events of runs, out of what the tables say and not out of what was announced: nobody who listens later,
-- or whose connection was cut, misses any. The order within a run or a step is fixed: events are only added to it.

-- Keeps what a run or a step has been, where it is set back.
create or replace function pgflow._keep_past_events()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_step text;
  v_skipped timestamptz;
  v_covered boolean;
  v_kept boolean := old.started_at = new.started_at; -- null: it has to begin anew
begin
  if tg_table_name = 'step_states' then
    v_step := old.step_slug;
    v_skipped := old.skipped_at;
  end if;
  select p.covers_start into v_covered
  from pgflow.past_events p
  where p.run_id = old.run_id and p.step_slug is not distinct from v_step
  order by p.event_id desc
  limit 1;

  insert into pgflow.past_events (run_id, step_slug, status, at, covers_start)
  select old.run_id, v_step, e.status, e.at, coalesce(v_kept, false)
  from (
    values
      (1, 'started', case when not coalesce(v_covered, false) then old.started_at end),
      (2, 'completed', old.completed_at),
      (3, 'failed', old.failed_at),
      (4, 'skipped', v_skipped),
      (5, 'started', case when v_kept and new.status = 'started' then now() end)
  ) e (place, status, at)
  where e.at is not null
  order by e.place;
  return null;
end;
$$;

create or replace trigger keep_past_events
  after update of status on pgflow.runs
  for each row
  when (old.status <> 'started' and new.status <> old.status)
  execute function pgflow._keep_past_events();

create or replace trigger keep_past_events
  after update of status on pgflow.step_states
  for each row
  when (old.status not in ('created', 'started') and new.status <> old.status
    or old.status = 'started' and new.status = 'created')
  execute function pgflow._keep_past_events();

-- The events of these runs. place: their order within the run (step_slug is null) or the step.
create or replace function pgflow.run_events(run_ids uuid[])
returns table (
  run_id uuid,
  flow_slug text,
  step_slug text,
  step_index int,
  status text,
  at timestamptz,
  place bigint
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  with shown as materialized (
    select r.run_id, r.flow_slug, r.status, r.started_at, r.completed_at, r.failed_at
    from pgflow.runs r
    where r.run_id = any (run_events.run_ids)
      and coalesce(r.flow_slug = any ((select pgflow._granted_flows('run_events'))::text[]), true)
  ),
  past as materialized (
    select p.*
    from shown r
    join pgflow.past_events p on p.run_id = r.run_id
  ),
  present as (
    select r.run_id, null as step_slug, e.status, e.at, e.place
    from shown r
    cross join lateral (
      values ('started', r.started_at, 1), ('completed', r.completed_at, 2), ('failed', r.failed_at, 2)
    ) e (status, at, place)
    union all
    select ss.run_id, ss.step_slug, e.status, e.at, e.place
    from shown r
    join pgflow.step_states ss on ss.run_id = r.run_id
    cross join lateral (
      values
        ('started', ss.started_at, 1), ('completed', ss.completed_at, 2), ('failed', ss.failed_at, 2),
        ('skipped', ss.skipped_at, 2)
    ) e (status, at, place)
  ),
  events as (
    select p.run_id, p.step_slug, p.status, p.at, 0 as life, p.event_id as place from past p
    union all
    select e.run_id, e.step_slug, e.status, e.at, 1, e.place
    from present e
    where e.at is not null
      and not (
        e.status = 'started'
        and coalesce(
          (
            select p.covers_start
            from past p
            where p.run_id = e.run_id and p.step_slug is not distinct from e.step_slug
            order by p.event_id desc
            limit 1
          ),
          false
        )
      )
  )
  select r.run_id, r.flow_slug, e.step_slug, s.step_index, e.status, e.at,
    row_number() over (partition by e.run_id, e.step_slug order by e.life, e.place)
  from events e
  join shown r on r.run_id = e.run_id
  left join pgflow.steps s on s.flow_slug = r.flow_slug and s.step_slug = e.step_slug;
$$;
